// Package settings holds the code of docs/settings.md, compiled and run: for each
// kind of program the tests show that its settings do what the page says.
package settings
