// Package session gives net/http handlers sessions that live in PostgreSQL, in
// the very table that Node's connect-pg-simple uses, so that a Go program and
// an Express program can share one set of logged-in users.
//
//	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
//	if err != nil { log.Fatal(err) }
//	sessions, err := session.Open(ctx, pool) // SESSION_SECRET, SESSION_TIMEOUT; makes the table; prunes
//	if err != nil { log.Fatal(err) }
//	defer sessions.Close()
//	log.Print(http.ListenAndServe(":8080", sessions.Handler(mux)))
//
// Values have typed keys, declared once:
//
//	const userID = session.Key[int64]("userId")
//
//	func login(w http.ResponseWriter, r *http.Request) {
//		s := session.From(r.Context())
//		s.Renew() // new ID, data kept: defeats fixation
//		userID.Set(s, 42)
//	}
//
//	func account(w http.ResponseWriter, r *http.Request) {
//		id, ok := userID.Get(session.From(r.Context()))
//		...
//	}
//
//	func logout(w http.ResponseWriter, r *http.Request) {
//		session.From(r.Context()).Destroy()
//	}
//
// # What holds
//
// Two overlapping requests of one session that set different keys both keep
// their change; a counter or a cart under one key survives by [Key.Update].
//
// A request that finishes after its session was destroyed, renewed or expired
// never brings it back: no record, no cookie. A logout ends the session whatever
// its ID was or becomes: a renewal before it, in the same moment or after it does
// not escape.
//
// What a complete response with a status under 400 says is stored. What comes too
// late for that is an error page or a response that is cut off.
//
// Nobody is logged out who did not ask: not by a slow request that overlaps a
// login, nor by two logins at once.
//
// An outage never looks like a logout. If the session cannot be read or saved
// the browser gets [Config.ErrorHandler]'s answer (503) instead of the
// handler's page, and keeps its cookie. No handler has to check an error.
//
// A request that does not use its session costs no statement and gets no
// header. A read costs one statement, and the expiry is written once per
// [Config.TouchInterval], not once per request.
//
// # A request
//
// [From] finds the session in the request's context and does no I/O. Its first
// use verifies the cookie and loads the record. The handler then works in
// memory. Before the first byte of the response leaves, by whatever way, the
// changes are committed in one statement. A change made after that is saved
// when the handler returns, and the connection is aborted if that fails; a
// renewal or a new session is then too late ([ErrHeaderSent]), which aborts it
// as well.
//
// Statements run on contexts of their own, bounded by [Config.StoreTimeout]:
// a browser that goes away neither loses its save nor kills a connection.
//
// # Ending sessions
//
// [Manager.Revoke] destroys the sessions in which a key has a value: all of a
// user, all but this one after a password change, or everyone's.
// [Manager.Sessions] lists them for a page "your devices", by a handle that gives
// no access, and [Config.MaxPerUser] limits them. [Session.RenewedAt] tells how
// long ago the user logged in, for what wants the password again.
//
// # What is no visit
//
// A poll says [Session.SkipTouch] and keeps nobody logged in; [Session.ExpiresIn] tells
// a page when its user will be logged out. What a browser fetches before its user has
// come changes no session: [Manager.Handler]. A login that another site sends back by
// a form brings no cookie: [PostAgain].
//
// # Users
//
// With [Config.UserKey] the key that says who is logged in makes logins hard to get
// wrong: setting it renews, setting it to another user begins a session without
// anything of the one before, deleting it ends the session.
//
// # Words
//
// The session ID is the random value that names a session: 24 random bytes, 32
// base64url characters. The record is the stored row: session ID, data, expiry.
// To touch is to move a record's expiry forward, to prune to delete expired
// records, to renew to change the ID and keep the data, to destroy to delete
// the record and expire the cookie. A mark is what a renewal leaves under the old
// ID for a quarter of an hour: where the record went, for a logout. The idle timeout runs since the last
// request that used the session, the absolute timeout since its creation.
//
// # Limits
//
// The cookie is a bearer token: who steals it has the session until it ends.
// Data is stored in the clear unless [Config.Encrypt] is set, and session IDs
// unless [PostgresOptions.HashIDs] is. Absolute timeouts are measured by the
// programs' clocks; everything else by the database's. Between the last statement
// of a request and the header of its response there is a moment in which another
// request can log in or out; docs/guarantees.md says what that can do, and what
// else no library can promise.
package session
