// Package logins holds the code of docs/logins.md, compiled against the real login
// libraries and driven with them on PostgreSQL, and the test that compares the two. Its
// part about OpenID Connect is examples/oidc.
package logins
