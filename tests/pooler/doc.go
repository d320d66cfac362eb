// Package pooler has no code of its own. Its tests run the library behind a real
// PgBouncer, which hands the statements of one connection to several of the
// server.
//
// It is a module of its own because not everybody who tests the library has a
// PgBouncer.
package pooler
