// Package faults runs an application with sessions under load while PostgreSQL,
// the network or a pooler in between fails, and accounts for every answer.
//
// A [Program] is one instance of the application, [App], on a real HTTP server.
// A [Load] lets many [Browser]s use it, each with its cookies; a [Ledger] knows
// what every one of them was told, and says where a later answer, or a row in
// the table, does not agree with it. The tests are the faults, one each, and
// end with a table of all.
package faults
