// Package upgrade moves the sessions of two programs under load from one
// PostgreSQL to a newer one by logical replication, with the statements that
// docs/operations.md tells operators to run, and accounts for every answer. Where
// a step is forgotten, the accounts must show it.
//
//	go test ./upgrade -v
package upgrade
