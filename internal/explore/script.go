package explore

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Call is what a handler does with its session.
type Call string

// The calls. Login is Renew and a Set of the user's key; Write sends the first
// byte; Public marks the response as one that caches may keep. Reenter is an
// Update whose function saves and sets, which is an error. Seconds and Minutes let
// time pass, over a renewal's grace and over its mark: as a handler's first call
// before the request begins, else in the handler. Revoke and Edit are no calls of a
// handler but stand alone, for an administrator; Edit does to all of the user's
// sessions what Update does to one.
const (
	Get       Call = "get"
	SetLight  Call = "set light"
	SetDark   Call = "set dark"
	Update    Call = "update"
	Take      Call = "take"
	Delete    Call = "delete"
	Login     Call = "login"
	Renew     Call = "renew"
	Destroy   Call = "destroy"
	UpdateNow Call = "update now"
	Save      Call = "save"
	Reload    Call = "reload"
	IdleLong  Call = "idle long"
	IdleShort Call = "idle short"
	Write     Call = "write"
	Public    Call = "public"
	Detach    Call = "detach"
	Panic     Call = "panic"
	Reenter   Call = "reenter"
	Seconds   Call = "11s later"
	Minutes   Call = "16m later"
	Revoke    Call = "revoke"
	Edit      Call = "edit"

	// What sets the user's key without Renew: to the user there or to another one; and
	// what deletes it. Random scripts have them where Config.UserKey is set.
	Enter      Call = "enter"
	EnterOther Call = "enter as another"
	Leave      Call = "leave"

	// Bind asks for a key, in runs of Config.Bound. Refresh is no call of a handler
	// but stands alone, for what the browser does beside its pages: it registers the
	// key that it was asked for last, else it proves the one it has.
	Bind    Call = "bind"
	Refresh Call = "refresh"

	// Skip says that the request is none of the user's.
	Skip Call = "skip touch"

	// Hijack takes the connection over, as for a WebSocket: no header of the
	// response reaches the browser.
	Hijack Call = "hijack"
)

// Calls are all calls of a handler.
var Calls = []Call{
	Get, SetLight, SetDark, Update, UpdateNow, Take, Delete, Login, Renew, Destroy, Save,
	Reload, IdleLong, IdleShort, Write, Public, Detach, Panic, Reenter, Seconds, Minutes,
}

// Users are the calls that set or delete the user's key alone.
var Users = []Call{Enter, EnterOther, Leave}

// Later returns for how long a call waits, 0 if it does not.
func Later(c Call) time.Duration {
	switch c {
	case Seconds:
		return 11 * time.Second
	case Minutes:
		return 16 * time.Minute
	}
	return 0
}

// Config is how the configuration of a run differs from the usual one.
type Config struct {
	NoUserKey bool // Config.UserKey is not set
	Encrypt   bool
	Express   bool // the cookie's format
	Absolute  bool // an absolute timeout of 20 minutes
	Domain    bool // Cookie.Domain has just been set: the browser's cookie is from before
	Stray     bool // likewise, and the cookie from before is of a dead session; the live one's comes second
	Programs  bool // two, on one store: B's is another than that of A and C
	Wrapped   bool // a store around the store loses what comes beside an error
	Bound     bool // sessions are bound to the browser's device; the first one is already
	Token     bool // the client holds a token, and no cookie
	Limited   bool // Config.MaxPerUser is one
	Exit      bool // Cookie.BrowserSession: the cookie lives until the browser's exit
}

// options names what is set in a Config.
func (c *Config) options() []option {
	return []option{
		{"no-user-key", &c.NoUserKey},
		{"encrypt", &c.Encrypt},
		{"express", &c.Express},
		{"absolute", &c.Absolute},
		{"domain", &c.Domain},
		{"stray", &c.Stray},
		{"wrapped", &c.Wrapped},
		{"programs", &c.Programs},
		{"bound", &c.Bound},
		{"token", &c.Token},
		{"limited", &c.Limited},
		{"exit", &c.Exit},
	}
}

type option struct {
	name string
	set  *bool
}

// Setup is what browser and table hold at the beginning.
type Setup string

// The setups: a session of a logged-in user with the value light, just used;
// one that was not used for long, so that its expiry must move; one with an idle
// timeout of its own of 30 days, of which one has gone by; one whose cookie was
// signed with an old secret; one of which both is true, the secret is old and the
// expiry must move; one without the value; none at all. Visitor is that of nobody,
// with the value, and comes with Users alone.
const (
	Fresh     Setup = "fresh"
	Aged      Setup = "aged"
	Remember  Setup = "remember"
	OldSecret Setup = "old-secret"
	OldAged   Setup = "old-secret-aged"
	Bare      Setup = "bare"
	None      Setup = "none"
	Visitor   Setup = "visitor"
)

// Setups are all setups but Visitor.
var Setups = []Setup{Fresh, Aged, Remember, OldSecret, OldAged, Bare, None}

// FaultKind is a way in which a store operation goes wrong.
type FaultKind string

// The faults. Refused: nothing done, and the error says so. Lost: nothing done,
// and nobody knows. ReplyLost: done, and nobody knows. Late: done, and the
// answer does not come before the deadline. Down: nothing done, nor anything of
// anybody's from now on.
const (
	Refused   FaultKind = "refused"
	Lost      FaultKind = "lost"
	ReplyLost FaultKind = "reply-lost"
	Late      FaultKind = "late"
	Down      FaultKind = "down"
)

// Never is no fault that a store may have: it never answers. Tests of R8 use it.
const Never FaultKind = "never"

// FaultKinds are all faults that a store may have.
var FaultKinds = []FaultKind{Refused, Lost, ReplyLost, Late, Down}

// Fault hits the store operation number Nth, from 1, of an actor.
type Fault struct {
	Kind  FaultKind
	Actor int
	Nth   int
}

// Script is one schedule. The zero Fault is none.
type Script struct {
	Setup Setup
	Config
	Split  bool     // others may move between a request's last operation and its header
	Actors [][]Call // the requests: A, B, C
	Fault  Fault

	// Beside names actors that are no requests of their own but further
	// goroutines of another's handler. Theirs are calls that do not reach the
	// store, but for Save.
	Beside map[int]int

	// Steps say who moves next. One who cannot is passed over; after the last
	// step whoever moved goes on until it cannot, then the first who can.
	Steps []int
}

// Name returns the letter of an actor.
func Name(actor int) string { return string(rune('A' + actor)) }

// Outside reports whether the actor is no request.
func (s *Script) Outside(actor int) bool {
	return s.Is(actor, Revoke) || s.Is(actor, Edit) || s.Is(actor, Refresh)
}

// Is reports whether the actor makes that call alone, as a revocation does.
func (s *Script) Is(actor int, call Call) bool {
	return len(s.Actors[actor]) == 1 && s.Actors[actor][0] == call
}

// Has reports whether any actor makes one of the calls.
func (s *Script) Has(calls ...Call) bool {
	return slices.ContainsFunc(s.Actors, func(a []Call) bool {
		return slices.ContainsFunc(a, func(c Call) bool { return slices.Contains(calls, c) })
	})
}

// Clone returns a copy that shares nothing.
func (s *Script) Clone() Script {
	c := *s
	c.Steps = slices.Clone(s.Steps)
	c.Actors = slices.Clone(s.Actors)
	c.Beside = maps.Clone(s.Beside)
	for i := range c.Actors {
		c.Actors[i] = slices.Clone(c.Actors[i])
	}
	return c
}

// Head returns the script without its steps, as text.
func (s *Script) Head() string {
	var b strings.Builder
	fmt.Fprintf(&b, "setup %s\n", s.Setup)
	for _, o := range s.options() {
		if *o.set {
			b.WriteString("config " + o.name + "\n")
		}
	}
	if s.Split {
		b.WriteString("config split\n")
	}
	for i, calls := range s.Actors {
		b.WriteString(Name(i))
		if of, ok := s.Beside[i]; ok {
			b.WriteString(" beside " + Name(of))
		}
		b.WriteString(": ")
		for j, c := range calls {
			if j > 0 {
				b.WriteString(", ")
			}
			b.WriteString(string(c))
		}
		b.WriteByte('\n')
	}
	if f := s.Fault; f.Kind != "" {
		fmt.Fprintf(&b, "fault: %s %d %s\n", Name(f.Actor), f.Nth, f.Kind)
	}
	return b.String()
}

// String returns the script as text, one line a step, which [Parse] reads.
func (s *Script) String() string { return s.Text(nil) }

// Text is String with a word on what each step did, which Parse passes over.
func (s *Script) Text(did []string) string {
	var b strings.Builder
	b.WriteString(s.Head())
	for i, actor := range s.Steps {
		b.WriteString(Name(actor))
		if i < len(did) {
			b.WriteString("  " + did[i])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Parse reads a script. Of a step it reads the first word only.
func Parse(text string) (Script, error) {
	s := Script{Setup: Fresh}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := s.parseLine(line); err != nil {
			return s, fmt.Errorf("script: %q: %w", line, err)
		}
	}
	if s.Fault.Actor >= len(s.Actors) && s.Fault.Kind != "" {
		return s, fmt.Errorf("script: a fault of %s, who is not there", Name(s.Fault.Actor))
	}
	for _, actor := range s.Steps {
		if actor >= len(s.Actors) {
			return s, fmt.Errorf("script: a step of %s, who is not there", Name(actor))
		}
	}
	return s, nil
}

func (s *Script) parseLine(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch {
	case word == "setup":
		s.Setup = Setup(rest)
		if s.Setup != Visitor && !slices.Contains(Setups, s.Setup) {
			return fmt.Errorf("no such setup")
		}
	case word == "config" && rest == "split":
		s.Split = true
	case word == "config":
		i := slices.IndexFunc(s.options(), func(o option) bool { return o.name == rest })
		if i < 0 {
			return fmt.Errorf("no such option")
		}
		*s.options()[i].set = true
	case word == "fault:":
		return s.parseFault(strings.Fields(rest))
	case len(word) == 1 && strings.HasPrefix(rest, "beside "):
		of, calls, _ := strings.Cut(strings.TrimPrefix(rest, "beside "), ":")
		if len(of) != 1 || int(of[0]) < 'A' || int(of[0]) >= 'A'+len(s.Actors) {
			return fmt.Errorf("beside whom")
		}
		if s.Beside == nil {
			s.Beside = map[int]int{}
		}
		s.Beside[len(s.Actors)] = int(of[0] - 'A')
		return s.parseCalls(calls)
	case len(word) == 2 && word[1] == ':':
		if int(word[0]) != 'A'+len(s.Actors) {
			return fmt.Errorf("actors are A, B, C, in this order")
		}
		return s.parseCalls(rest)
	case len(word) == 1 && word[0] >= 'A' && word[0] <= 'Z':
		s.Steps = append(s.Steps, int(word[0]-'A'))
	default:
		return fmt.Errorf("neither setup, config, fault, actor nor step")
	}
	return nil
}

func (s *Script) parseCalls(text string) error {
	calls := []Call{}
	for name := range strings.SplitSeq(text, ",") {
		c := Call(strings.TrimSpace(name))
		if c != "" && c != Revoke && c != Edit && c != Bind && c != Refresh && c != Skip && c != Hijack && !slices.Contains(Calls, c) && !slices.Contains(Users, c) {
			return fmt.Errorf("no such call: %q", c)
		}
		if c != "" {
			calls = append(calls, c)
		}
	}
	s.Actors = append(s.Actors, calls)
	return nil
}

func (s *Script) parseFault(words []string) error {
	if len(words) != 3 || len(words[0]) != 1 || !slices.Contains(append(FaultKinds, Never), FaultKind(words[2])) {
		return fmt.Errorf("a fault is an actor, a number and a kind")
	}
	nth, err := strconv.Atoi(words[1])
	s.Fault = Fault{Kind: FaultKind(words[2]), Actor: int(words[0][0] - 'A'), Nth: nth}
	return err
}
