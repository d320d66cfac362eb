// Package databases holds the code of docs/databases.md, compiled against the
// real database libraries and migration tools and tested with them on
// PostgreSQL, and the tests that compare the two.
package databases
