package session_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
)

// loginOn logs user 42 in, from a browser of its own.
func loginOn(sessions *session.Manager, device string) {
	const userID, deviceName = session.Key[int]("userId"), session.Key[string]("device")
	w := httptest.NewRecorder()
	sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Renew()
		userID.Set(s, 42)
		deviceName.Set(s, device)
	})).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/login", nil))
}

// The page "your devices". A form on it posts a handle back, for Revoke; user 42
// can only end sessions of user 42 with it.
func ExampleManager_Sessions() {
	const userID, deviceName = session.Key[int]("userId"), session.Key[string]("device")
	sessions := newExampleManager(session.Config{})
	loginOn(sessions, "phone")

	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Renew()
		userID.Set(s, 42)
		deviceName.Set(s, "laptop")
	})
	mux.HandleFunc("/devices", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		id, _ := userID.Get(s)
		list, err := sessions.Sessions(r.Context(), userID.Is(id))
		if err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		for _, i := range list {
			name, _ := deviceName.Of(i)
			fmt.Fprint(w, name, ", this one: ", i.Handle == s.Handle(), "; ")
		}
	})
	mux.HandleFunc("/revoke", func(w http.ResponseWriter, r *http.Request) { // a POST, in a real one
		s := session.From(r.Context())
		id, _ := userID.Get(s)
		n, err := sessions.Revoke(r.Context(), userID.Is(id).Handle(r.FormValue("handle")))
		fmt.Fprint(w, n, " ", err)
	})

	browse(sessions.Handler(mux), "/login", "/devices", "/revoke?handle=of-somebody-else")
	// Output:
	// /login 200
	// /devices 200 laptop, this one: true; phone, this one: false;
	// /revoke?handle=of-somebody-else 200 0 <nil>
}

// A password change ends every other session of the user. The password is
// stored first: a login with the old one may be under way.
func ExampleManager_Revoke() {
	const userID = session.Key[int]("userId")
	sessions := newExampleManager(session.Config{})
	loginOn(sessions, "a thief's")

	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Renew()
		userID.Set(s, 42)
	})
	mux.HandleFunc("/password", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		id, _ := userID.Get(s)
		// … store the hash of the new password …
		n, err := sessions.Revoke(r.Context(), userID.Is(id).Except(s))
		if err != nil {
			http.Error(w, "the password is changed, but others may still be logged in", http.StatusServiceUnavailable)
			return
		}
		s.Renew()
		fmt.Fprint(w, n, " other session ended")
	})

	browse(sessions.Handler(mux), "/login", "/password", "/password")
	// Output:
	// /login 200
	// /password 200 1 other session ended
	// /password 200 0 other session ended
}

// Before something that must not be done with a browser left alone, the password
// is asked for again unless that was a moment ago.
func ExampleSession_RenewedAt() {
	const userID = session.Key[int]("userId")
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Renew() // also when the password was asked for again
		userID.Set(s, 42)
	})
	mux.HandleFunc("/transfer", func(w http.ResponseWriter, r *http.Request) {
		if time.Since(session.From(r.Context()).RenewedAt()) > 10*time.Minute {
			http.Redirect(w, r, "/password", http.StatusSeeOther)
			return
		}
		fmt.Fprint(w, "transferred")
	})
	mux.HandleFunc("/password", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "your password, please") })

	sessions := newExampleManager(session.Config{})
	browse(sessions.Handler(mux), "/transfer", "/login", "/transfer")
	// Output:
	// /transfer 200 your password, please
	// /login 200
	// /transfer 200 transferred
}

// A user has two sessions at most: the third login ends the oldest.
func ExampleConfig_maxPerUser() {
	sessions := newExampleManager(session.Config{UserKey: "userId", MaxPerUser: 2})
	for _, device := range []string{"phone", "tablet", "laptop"} {
		loginOn(sessions, device)
	}
	list, err := sessions.Sessions(context.Background(), session.Key[int]("userId").Is(42))
	fmt.Println(len(list), err)
	// Output:
	// 2 <nil>
}

// Session IDs are hashed in the table and its data is encrypted; the user's
// sessions are found all the same, by an index.
func ExamplePostgresOptions() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{HashIDs: true, IndexKeys: []string{"userId"}})
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := session.New(store, session.Config{Secret: os.Getenv("SESSION_SECRET"), Encrypt: true, UserKey: "userId"})
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close()
	n, err := sessions.Revoke(ctx, session.Key[int64]("userId").Is(42))
	slog.Info("logged out everywhere", "sessions", n, "error", err)
}
