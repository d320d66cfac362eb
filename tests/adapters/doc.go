// Package adapters holds the code of docs/adapters.md, compiled against the real
// frameworks and tested with them, and the tests that compare the two.
package adapters
