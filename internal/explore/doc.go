// Package explore checks the promises of package session in all the orders in
// which overlapping requests can happen.
//
// Read it in the order of a run: a [Script] (script.go) says which requests
// there are, what their handlers call and who moves when; a [Stage] (stage.go)
// lets one request at a time move, from one store operation to the next; a
// [History] (history.go) is what happened; the [Rules] (rules.go and beside it)
// say what must be true of every history. [Small] and [Random] (search.go) make
// scripts, [All] goes through the orders of one, and [Shrink] (shrink.go) makes
// one that breaks a rule as small as it can be. What runs a script on the real
// Manager.Handler is in the package's tests, for this package imports nothing
// of the session's: world_test.go, store_test.go and browser_test.go.
//
// # What is covered
//
// Two or three requests of one browser that begin with the cookies it holds at that
// moment, each with up to four calls out of [Calls], a revocation from outside, and
// in one random schedule of six an edit of all of the user's sessions. A
// request stops before and after each of its store operations, and the script
// decides who goes on. Calls that do not reach the store touch only their own
// request's memory, so to stop at them as well would only repeat the same
// history: what other requests can do between two calls they can do at the
// store operation before or after. A schedule has one [Fault] at most. Time is
// the bubble's (testing/synctest): a moment passes with every step, more only
// when nobody can go on or where a script says so: eleven seconds, over the grace
// after a renewal, or sixteen minutes, over its mark, before a request begins or in
// its handler. Panics are recovered outside of the session's handler and answered
// with 500, as most programs do.
//
// Random scripts also come with a [Config] of their own: without Config.UserKey, with
// Encrypt, the cookies of Express, an absolute timeout, two cookies of one name after
// Cookie.Domain was set (the first from before, live or dead), and with a store that
// loses what comes beside an error, or two programs on one store. In some a handler has a second goroutine
// ([Script.Beside]), which saves, too; the rules that ask whose call it was are not
// checked in these.
//
// In one random script in four handlers set and delete the key of Config.UserKey alone
// ([Users]), some of them in a session that is nobody's: who becomes a user, or another
// one, gets another ID, and nothing of one user's gets into the next one's session.
//
// In one random script in seven, and in every small one, a request takes its connection
// over ([Hijack]), so that no header of its response reaches the browser. In one in
// eight cookies live until the browser's exit ([Config.Exit]).
//
// With Config.MaxPerUser, where logins end sessions, all requests log in ([Logins],
// [RandomLogins]); the rules that such an end would break are not checked there.
//
// One random script in five is of a session that is bound to the browser's device
// ([Config.Bound]): its handlers ask for other keys, and the browser registers and
// proves them beside its requests ([Bind], [Refresh]), with real signatures and real
// tokens. After it, the browser's next request must be let in, and one with a copy of the
// session's cookie alone must not. The browser does not drop a bound cookie by itself there,
// and loads a page that is to load itself again no second time.
//
// One random script in ten is of a client without cookies ([Config.Token]): it holds a
// token, brings it in Authorization, and keeps the one that comes. It is held to the same
// rules, gets no cookie ever, and whoever holds a cookie gets no token.
//
// The last store operation of a commit before the header and the header itself
// are one step: what happens between them no rule can mend, because a header
// cannot be taken back. [Script.Split] takes that step apart, so that tests can
// count what is left there.
//
// On PostgreSQL (postgres_test.go) fewer schedules are held to the same rules, in real
// time, with shared and single statements, hashed IDs, hash partitions, Encrypt and
// cookies of Express.
//
// # What is not
//
// Other stores, statements that overlap inside of PostgreSQL (the
// root package's tests force those), a MaxPerUser above one, application
// code that uses the session inside a Marshaler or an ErrorHandler, what the network
// or net/http's buffer does to a header that has left, a write that the store carries
// out after its caller has given up, and requests that lie more than some quarters of
// an hour apart.
//
// # How to use it
//
//	go test ./internal/explore                                 # a few seconds
//	go test ./internal/explore -run 'Explore$' -v -timeout=0 -bound=2 -schedules=1000000
//	go test ./internal/explore -run 'Explore$' -v -timeout=0 -bound=0 -schedules=1000000 -seed=1000001
//	go test ./internal/explore -run 'ExplorePostgres$' -v -postgres=300
//	go test ./internal/explore -run 'Mutants$' -v -timeout=0 -mutants=all
//
// The second goes through all schedules of handlers with up to two calls in all,
// with every fault in those of one call, and then through a million random ones;
// the third goes on with the next million. A breach is printed as a script: it goes into the table in
// known_test.go, which every run replays. The same seed is the same run, and the
// same script too, but where a handler's second goroutine saves.
//
// The last one tests the explorer: it puts one fault after the other into the code
// (mutants_list_test.go), and each must be found.
package explore
