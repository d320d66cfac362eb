// Package pooler has no code of its own. Its tests run the library behind a real
// PgBouncer, which hands the statements of one connection to several of the
// server.
//
// It is not among the tests of the root module because not everybody who tests the
// library has a PgBouncer.
package pooler
