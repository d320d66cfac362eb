package explore_test

import (
	"testing"

	"github.com/pgsession/session/internal/explore"
)

// known are schedules that are worth keeping: in each a rule was broken once, or
// would be by code that looks right. They break none. What a step did is told as
// it was then; only its first word counts.
var known = []struct {
	name   string
	script string
}{
	{"a slow read signs the ID anew that a login has ended", `
		setup old-secret
		A: get
		B: renew
		A  begins with ID1; get
		B  begins with ID1; renew
		A  Load ID1
		B  Load ID1
		B  comes to Update
		B  Update ID1 to ID2; sends 200 with ID2; ends
		A  sends 200 with ID1; ends`},
	{"the look before the header finds a login's mark beside a save of the same request", `
		setup old-secret
		A: get
		B: renew
		C beside A: set dark, save
		A  begins with ID1; get
		A  Load ID1
		A  comes to Load
		C  set dark
		C  save
		C  Update ID1
		C  comes to another's turn
		B  begins with ID1; renew
		B  Load ID1
		B  comes to Update
		B  Update ID1 to ID2; sends 200 with ID2; ends
		A  Load ID1 fails; sends 200 with ID1; ends`},
	{"an early save's cookie leaves after a login", `
		setup aged
		A: get, save
		B: renew
		A  begins with ID1; get
		A  Load ID1
		A  save
		A  Touch ID1
		B  begins with ID1; renew
		B  Load ID1
		B  comes to Update
		B  Update ID1 to ID2; sends 200 with ID2; ends
		A  sends 200 with ID1; ends`},
	{"a first use after a login begins a stranger's session", `
		setup fresh
		A: renew
		B: set dark
		A  begins with ID1; renew
		B  begins with ID1; set dark
		A  Load ID1
		A  comes to Update
		A  Update ID1 to ID2; sends 200 with ID2; ends
		B  Load ID1 fails
		B  comes to Create
		B  Create ID3; sends 200 with ID3; ends`},
	{"a logout meets a login that it cannot see", `
		setup fresh
		A: destroy
		B: renew
		A  begins with ID1; destroy
		B  begins with ID1; renew
		B  Load ID1
		B  comes to Update
		B  Update ID1 to ID2; sends 200 with ID2; ends
		A  Delete ID1; sends 200 with the cookie's end; ends`},
	{"a login that is slow after its save logs in again after a logout", `
		setup fresh
		A: destroy
		B: renew, save
		A  begins with ID1; destroy
		B  begins with ID1; renew
		B  Load ID1
		B  save
		B  Update ID1 to ID2
		A  Delete ID1; sends 200 with the cookie's end; ends
		B  sends 200 with ID2; ends`},
	{"a renewal after the first byte is lost", `
		setup fresh
		A: write, renew
		A  begins with ID1; write; sends 200; renew`},
	{"a login after the first byte is lost", `
		setup none
		A: write, login
		A  begins with no cookie; write; sends 200; login; ends`},
	{"a first use after the first byte extends nothing", `
		setup aged
		A: write, get
		A  begins with ID1; write; sends 200; get`},
	{"a public page extends the record and no cookie", `
		setup aged
		A: get
		B: public, get
		A  begins with ID1; get
		B  begins with ID1; public; get
		B  Load ID1
		B  comes to Touch
		B  Touch ID1; sends 200; ends
		A  Load ID1
		A  sends 200; ends`},
	{"a slow touch undoes a short idle timeout", `
		setup remember
		A: get
		B: idle short
		A  begins with ID1; get
		A  Load ID1
		B  begins with ID1; idle short
		B  Load ID1
		B  comes to Update
		B  Update ID1; sends 200 with ID1; ends
		A  Touch ID1; sends 200 with ID1; ends`},
	{"a value as it was loaded is not stored over another's", `
		setup fresh
		A: get, set light
		B: set dark
		A  begins with ID1; get
		A  Load ID1
		B  begins with ID1; set dark
		B  Load ID1
		B  comes to Update
		B  Update ID1; sends 200; ends
		A  set light; sends 200; ends`},
	{"what was added meanwhile is not deleted", `
		setup bare
		A: get, delete
		B: set dark
		A  begins with ID1; get
		A  Load ID1
		B  begins with ID1; set dark
		B  Load ID1
		B  comes to Update
		B  Update ID1; sends 200; ends
		A  delete; sends 200; ends`},
	{"a panic after a renewal that is saved loses the new ID", `
		setup fresh
		A: renew, save, panic
		A  begins with ID1; renew`},
	{"a renewal that is saved and left to the handler loses the new ID", `
		setup fresh
		A: renew, save, detach
		A  begins with ID1; renew`},
	{"a logout that is left to the handler is none", `
		setup fresh
		A: detach, destroy
		A  begins with ID1; detach`},
	{"an error after a renewal that is saved does not send the new ID", `
		setup fresh
		A: renew, save, set dark
		fault: A 3 refused
		A  begins with ID1; renew`},
	{"a lost save takes another's earlier change for a later one", `
		setup fresh
		A: get, delete
		B: set dark
		fault: A 2 lost
		A  begins with ID1; get
		A  Load ID1
		B  begins with ID1; set dark
		B  Load ID1
		B  comes to Update
		B  Update ID1; sends 200; ends
		A  delete
		A  Update ID1 fails
		A  Load ID1; sends 200; ends`},
	{"a second goroutine comes too late, and the cookie is sent without a look", `
		setup old-secret-aged
		A: get, save
		B: revoke
		C beside A: renew
		fault: A 3 lost
		B  begins with no cookie; revoke
		A  begins with ID1; get
		A  Load ID1
		A  save
		A  Touch ID1
		A  comes to Touch
		C  renew
		B  DeleteFound
		B  ends
		A  Touch ID1 fails; sends 200 with ID1; ends`},
	{"a logout after a renewal leaves a second cookie", `
		setup fresh
		config stray
		A: renew, save, destroy
		A  begins with ID1; renew`},
	{"a logout that comes later than the grace, with an ID that it has looked for", `
		setup fresh
		A: 11s later, get, destroy
		B: renew
		fault: B 2 late
		B  begins with ID1; renew
		B  Load ID1
		B  comes to Update
		B  Update ID1 to ID2
		A  begins with ID1; get
		A  Load ID1 fails
		A  destroy; sends 200; ends
		B  sends 503; ends`},
	{"a login that another has ended panics", `
		setup none
		config limited
		A: login
		B: login, save, panic
		B  begins with no cookie; login; save
		A  begins with no cookie; login
		A  Create ID1
		A  Find
		A  Load ID1; sends 200 with ID1; ends
		B  Create ID2
		B  comes to Find
		B  Find
		B  comes to DeleteFound
		B  DeleteFound
		B  panic; sends 500 with ID2; ends`},
	{"a login ends another's session after its touch has found none", `
		setup aged
		config limited
		A: get, save, login
		B: login
		B  begins with ID1; login
		B  Load ID1
		B  comes to Update
		A  begins with ID1; get
		A  Load ID1
		A  save
		B  Update ID1 to ID2; sends 200 with ID2; ends
		A  Touch ID1 fails
		A  login
		A  Update ID1 to ID3 fails
		A  Load ID1 fails
		A  Create ID4
		A  Find
		A  DeleteFound; sends 200; ends`},
	{"a session that a request begins after a Destroy is revoked", `
		setup fresh
		A: destroy, enter, save
		B: revoke
		A  begins with ID1; destroy; enter; save
		A  Delete ID1
		A  comes to Create
		A  Create ID2
		A  comes to Load
		B  begins with no cookie; revoke
		B  DeleteFound
		B  ends
		A  Load ID2 fails; sends 200; ends`},
	{"a login meets a login", `
		setup fresh
		A: login
		B: login
		A  begins with ID1; login
		B  begins with ID1; login
		A  Load ID1
		B  Load ID1
		A  comes to Update
		B  comes to another's turn
		A  Update ID1 to ID2; sends 200 with ID2; ends
		B  Update ID1 to ID3 fails; sends 409; ends`},
}

// TestExploreKnown replays the known schedules.
func TestExploreKnown(t *testing.T) {
	l := newLab(t)
	for _, k := range known {
		script, err := explore.Parse(k.script)
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		h := l.run(&script, nil)
		if breaches := explore.Breaches(h); len(breaches) > 0 {
			t.Errorf("%s: breaks %v, in\n%s\n%s", k.name, breaches, script.Text(h.Did()), h)
		}
	}
}
