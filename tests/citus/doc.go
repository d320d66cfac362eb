// Package citus tests the statements that a store sends to a table that Citus has
// distributed over workers. SESSION_TEST_CITUS_URL names a coordinator with two
// workers or more; without it the same statements run on plain PostgreSQL,
// and the output says so. From the directory tests/citus:
//
//	SESSION_TEST_CITUS_URL="$COORDINATOR" go test -v
package citus
