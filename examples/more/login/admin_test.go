package main_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

// The pages for operators are there for administrators alone, who have given their
// password lately; to others there is nothing, whatever they ask for and however.
func TestAdmin(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada, bob, stranger := newVisitor(t, p), newVisitor(t, p), newVisitor(t, p)
	ada.signUp("ada").Want(t, 200, "Hello, ada")
	bob.signUp("bob").Want(t, 200, "Hello, bob")
	bobs := fmt.Sprint(row(t, dsn, "SELECT id FROM login_example.users WHERE name = 'bob'"))
	closed := func(who ...*visitor) {
		t.Helper()
		for _, v := range who {
			for _, path := range []string{"", "search?key=userId&value=" + bobs, "style.css", "revoke"} {
				if res := v.get("/admin/sessions/" + path); res.Code != http.StatusNotFound || strings.Contains(res.Body, "Sessions") {
					t.Errorf("%q: got %d, want 404 and nothing of the pages", path, res.Code)
				}
			}
			v.post("/admin/sessions/revoke", "key", "userId", "value", bobs).Want(t, 404)
			v.get("/admin/sessions").Want(t, 404)
		}
	}
	closed(stranger, bob, ada)
	if strings.Contains(ada.get("/account").Body, "/admin/") {
		t.Error("the account of a user who is none has a link to the pages")
	}

	execute(t, dsn, "UPDATE login_example.users SET admin = true WHERE name = 'ada'")
	closed(stranger, bob)
	ada.get("/account").Want(t, 200, "/admin/sessions/")
	ada.get("/admin/sessions/").Want(t, 200, "Live sessions", "When the live sessions began")
	ada.get("/admin/sessions").Want(t, 200, "Live sessions") // and so is it without the slash
	ada.get("/admin/sessions/search?key=userId&value="+bobs).Want(t, 200, "1 session", "a cookie")

	// A form of another site comes with her cookie, and ends nothing.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+"/admin/sessions/revoke", strings.NewReader(url.Values{"key": {"userId"}, "value": {bobs}}.Encode()))
	must(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	res, err := ada.Client.Do(r)
	must(t, err)
	exampletest.Read(t, res).Want(t, 403)
	bob.get("/account").Want(t, 200, "Hello, bob")

	// A browser that was left alone does neither.
	longAgo(t, dsn)
	ada.post("/admin/sessions/revoke", "key", "userId", "value", bobs).Want(t, 200, "Is it you?")
	bob.get("/account").Want(t, 200, "Hello, bob")
	ada.post("/confirm", "next", "/admin/sessions/", "password", password).Want(t, 200, "Live sessions")

	ada.post("/admin/sessions/revoke", "key", "userId", "value", bobs).Want(t, 200, "1 session was ended.", "No live session")
	bob.wantLoggedOut()
	p.WaitLog("sessionadmin: sessions ended")
	p.WantLog("msg=audit admin=")
	execute(t, dsn, "UPDATE login_example.users SET admin = false WHERE name = 'ada'")
	closed(ada)
}
