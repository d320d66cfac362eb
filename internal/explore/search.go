package explore

import (
	"math/rand/v2"
	"slices"
)

// Choose says who of those that are ready moves in a step. state names the state
// of the run: from equal states the same can follow.
type Choose func(step int, ready []int, state func() uint64) int

// Runner carries out a script; choose decides where it has no more steps.
// Without it whoever moved goes on until it cannot.
type Runner func(script *Script, choose Choose) *History

// All runs a script's actors in every order, at most limit orders, and calls
// visit with each history until that returns false. A state that was met before
// is not left the same way again.
func All(run Runner, head *Script, limit int, visit func(*History) bool) (runs int) {
	type turn struct {
		state uint64
		actor int
	}
	seen := map[turn]bool{}
	todo := [][]int{nil} // beginnings of orders
	for len(todo) > 0 && runs < limit {
		script := head.Clone()
		script.Steps = todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		var others [][2]int // step, and who might have moved in it instead
		h := run(&script, func(step int, ready []int, state func() uint64) int {
			now, next := state(), -1
			for _, actor := range ready {
				t := turn{now, actor}
				switch {
				case seen[t]:
				case next < 0:
					next = actor
				default:
					others = append(others, [2]int{step, actor})
				}
				seen[t] = true
			}
			if next < 0 {
				next = ready[0] // all that can follow was seen: come to an end
			}
			return next
		})
		for _, o := range others {
			todo = append(todo, append(slices.Clone(h.Steps[:o[0]]), o[1]))
		}
		runs++
		if !visit(h) {
			break
		}
	}
	return runs
}

// Small yields every script without steps, faults included, whose handlers make
// up to so many calls in all: one or two requests, or a request and a
// revocation. Requests that differ only in their order come once.
func Small(calls int, yield func(Script) bool) {
	for total := 1; total <= calls; total++ {
		for _, setup := range Setups {
			ok := eachPair(total, func(a, b []Call) bool {
				head := Script{Setup: setup, Actors: [][]Call{a}}
				if b != nil {
					head.Actors = append(head.Actors, b)
				}
				return yield(head)
			})
			if !ok {
				return
			}
		}
	}
}

// Logins yields scripts without steps of two requests of which each logs in, with so
// many calls beside that in all, where a user may have one session.
func Logins(beside int, yield func(Script) bool) {
	for _, setup := range []Setup{None, Visitor, Fresh, Bare, OldAged} {
		for first := range beside + 1 {
			ok := eachLogin(first, func(a []Call) bool {
				return eachLogin(beside-first, func(b []Call) bool {
					if slices.Compare(a, b) > 0 && len(a) == len(b) || len(a) > len(b) {
						return true
					}
					return yield(Script{Setup: setup, Config: Config{Limited: true}, Actors: [][]Call{a, b}})
				})
			})
			if !ok {
				return
			}
		}
	}
}

// eachLogin yields the lists of calls that have so many beside a login, before or after it.
func eachLogin(n int, yield func([]Call) bool) bool {
	return eachList(n, func(others []Call) bool {
		for _, login := range []Call{Login, Enter, EnterOther} {
			for at := range n + 1 {
				if !yield(slices.Insert(slices.Clone(others), at, login)) {
					return false
				}
			}
		}
		return true
	})
}

// eachPair yields the pairs of requests with so many calls in all. The second
// may be nil.
func eachPair(total int, yield func(a, b []Call) bool) bool {
	return eachList(total, func(all []Call) bool {
		if !yield(all, nil) || !yield(all, []Call{Revoke}) {
			return false
		}
		for cut := (total + 1) / 2; cut < total; cut++ {
			a, b := all[:cut], all[cut:]
			if cut == total-cut && slices.Compare(a, b) > 0 {
				continue
			}
			if !yield(a, b) {
				return false
			}
		}
		return true
	})
}

// systematic are the calls of small scripts.
var systematic = append(slices.Clone(Calls), Hijack)

func eachList(n int, yield func([]Call) bool) bool {
	if n == 0 {
		return yield(nil)
	}
	return eachList(n-1, func(head []Call) bool {
		for _, c := range systematic {
			if !yield(append(slices.Clone(head), c)) {
				return false
			}
		}
		return true
	})
}

// Faults yields the script with each single fault that strikes one of the first
// operations of an actor.
func Faults(head Script, operations int, yield func(Script) bool) {
	for actor := range head.Actors {
		for nth := 1; nth <= operations; nth++ {
			for _, kind := range FaultKinds {
				s := head.Clone()
				s.Fault = Fault{Kind: kind, Actor: actor, Nth: nth}
				if !yield(s) {
					return
				}
			}
		}
	}
}

// Random returns the script of a seed, and who moves in it.
func Random(seed uint64) (Script, Choose) {
	r := rand.New(rand.NewPCG(seed, 0)) // #nosec G404 -- to be repeated
	s := Script{Setup: Setups[r.IntN(len(Setups))], Config: randomConfig(r)}
	if s.Setup == None && r.IntN(2) == 0 {
		s.Setup = Fresh
	}
	for actor := range 2 + r.IntN(2) {
		if actor > 0 && r.IntN(10) == 0 {
			s.Actors = append(s.Actors, []Call{Revoke})
			continue
		}
		s.Actors = append(s.Actors, randomCalls(r))
	}
	if r.IntN(5) < 2 {
		s.Fault = Fault{Kind: FaultKinds[r.IntN(len(FaultKinds))], Actor: r.IntN(len(s.Actors)), Nth: 1 + r.IntN(4)}
	}
	if r.IntN(16) == 0 {
		s.addBeside(r)
	}
	s.addEdit(rand.New(rand.NewPCG(seed, 3)))                                                  // #nosec G404 -- to be repeated
	s.addBound(rand.New(rand.NewPCG(seed, 2)))                                                 // #nosec G404 -- to be repeated
	s.addSkips(rand.New(rand.NewPCG(seed, 4)))                                                 // #nosec G404 -- to be repeated
	s.addUsers(rand.New(rand.NewPCG(seed, 5)))                                                 // #nosec G404 -- to be repeated
	s.addHijack(rand.New(rand.NewPCG(seed, 8)))                                                // #nosec G404 -- to be repeated
	s.Token = !s.Bound && !s.Domain && !s.Stray && rand.New(rand.NewPCG(seed, 6)).IntN(6) == 0 // #nosec G404 -- to be repeated
	s.Exit = rand.New(rand.NewPCG(seed, 9)).IntN(8) == 0                                       // #nosec G404 -- to be repeated
	return s, randomOrder(r)
}

// addEdit adds an Edit to some schedules, and lets the fault strike it in some of these.
func (s *Script) addEdit(r *rand.Rand) {
	if r.IntN(6) > 0 || len(s.Beside) > 0 || len(s.Actors) > 3 {
		return
	}
	s.Actors = append(s.Actors, []Call{Edit})
	if s.Fault.Kind != "" && r.IntN(2) == 0 {
		s.Fault.Actor = len(s.Actors) - 1
	}
}

// addSkips makes one or two of the requests of some schedules none of the user's.
func (s *Script) addSkips(r *rand.Rand) {
	if r.IntN(5) > 0 {
		return
	}
	for range 1 + r.IntN(2) {
		actor := r.IntN(len(s.Actors))
		if _, beside := s.Beside[actor]; beside || s.Outside(actor) {
			continue
		}
		at := 0
		if r.IntN(4) == 0 {
			at = r.IntN(len(s.Actors[actor]))
		}
		s.Actors[actor] = slices.Insert(slices.Clone(s.Actors[actor]), at, Skip)
	}
}

// addHijack lets one of the requests of some schedules take its connection over, at
// any time of its handler.
func (s *Script) addHijack(r *rand.Rand) {
	if r.IntN(6) > 0 {
		return
	}
	actor := r.IntN(len(s.Actors))
	calls := s.Actors[actor]
	if _, beside := s.Beside[actor]; beside || s.Outside(actor) {
		return
	}
	at := r.IntN(len(calls) + 1)
	if calls[len(calls)-1] == Panic {
		at = min(at, len(calls)-1)
	}
	s.Actors[actor] = slices.Insert(slices.Clone(calls), at, Hijack)
}

// addBound binds the sessions of some schedules to the browser's device, lets one
// of the handlers ask for another key, and the browser prove it beside its pages.
func (s *Script) addBound(r *rand.Rand) {
	if r.IntN(5) > 0 || s.Express || s.Domain || s.Stray || len(s.Beside) > 0 {
		return
	}
	s.Bound = true
	if calls := s.Actors[0]; r.IntN(2) == 0 {
		s.Actors[0] = slices.Insert(slices.Clone(calls), r.IntN(len(calls)+1), Bind)
	}
	for range 1 + r.IntN(2) {
		if len(s.Actors) < 4 {
			s.Actors = append(s.Actors, []Call{Refresh})
		}
	}
}

// addUsers lets the handlers of some schedules set and delete the user's key alone.
func (s *Script) addUsers(r *rand.Rand) {
	if r.IntN(4) > 0 || s.NoUserKey || len(s.Beside) > 0 {
		return
	}
	if (s.Setup == Fresh || s.Setup == Bare) && r.IntN(3) == 0 {
		s.Setup = Visitor
	}
	for i, calls := range s.Actors {
		if s.Outside(i) || i > 0 && r.IntN(3) == 0 {
			continue
		}
		// EnterOther changes the most.
		c := append(slices.Clone(Users), EnterOther)[r.IntN(len(Users)+1)]
		at := r.IntN(len(calls) + 1)
		if calls[len(calls)-1] == Panic {
			at = min(at, len(calls)-1)
		}
		s.Actors[i] = slices.Insert(slices.Clone(calls), at, c)
	}
}

// randomConfig returns the usual configuration in most cases.
func randomConfig(r *rand.Rand) (c Config) {
	c.NoUserKey = r.IntN(8) == 0
	c.Wrapped = r.IntN(8) == 0
	c.Programs = r.IntN(3) == 0
	c.Encrypt = r.IntN(16) == 0
	c.Absolute = r.IntN(16) == 0
	switch r.IntN(16) { // Express knows one cookie: its first decides
	case 0, 1:
		c.Domain = true
	case 2:
		c.Stray = true
	case 3, 4:
		c.Express = true
	}
	return c
}

// RandomBeside is Random with a further goroutine in the handler of A.
func RandomBeside(seed uint64) (Script, Choose) {
	s, choose := Random(seed)
	if len(s.Beside) == 0 {
		s.addBeside(rand.New(rand.NewPCG(seed, 1))) // #nosec G404 -- to be repeated
	}
	return s, choose
}

// addBeside adds a further goroutine to the handler of A.
func (s *Script) addBeside(r *rand.Rand) {
	if s.Actors[0][0] == Panic || r.IntN(2) == 0 { // the longer A's handler, the more comes between
		s.Actors[0] = append([]Call{SetDark, Save}, s.Actors[0]...)
	}
	var calls []Call
	for range 1 + r.IntN(3) {
		calls = append(calls, beside[r.IntN(len(beside))])
	}
	s.Beside = map[int]int{len(s.Actors): 0}
	s.Actors = append(s.Actors, calls)
}

// RandomLogins is Random with requests of which each logs in, where a user may have one
// session.
func RandomLogins(seed uint64) (Script, Choose) {
	s, choose := Random(seed)
	r := rand.New(rand.NewPCG(seed, 7)) // #nosec G404 -- to be repeated
	s.Limited, s.NoUserKey = true, false
	for i, calls := range s.Actors {
		if s.Outside(i) || len(s.Beside) > 0 && i > 0 {
			continue
		}
		at := r.IntN(len(calls) + 1)
		if calls[len(calls)-1] == Panic {
			at = min(at, len(calls)-1)
		}
		s.Actors[i] = slices.Insert(slices.Clone(calls), at, logins[r.IntN(len(logins))])
	}
	return s, choose
}

// logins give the session a user; one in five of them another than the others.
var logins = []Call{Login, Enter, Login, Enter, EnterOther}

// RandomStream is Random with an A that has sent its first byte early, as a
// stream or a socket has.
func RandomStream(seed uint64) (Script, Choose) {
	s, choose := Random(seed)
	s.Actors[0] = append([]Call{Get, Write}, s.Actors[0]...)
	return s, choose
}

// beside are the calls that do not reach the store once the session is loaded,
// and Save.
var beside = []Call{Get, SetLight, SetDark, Update, Take, Delete, Login, Renew, Destroy, IdleLong, IdleShort, Detach, Save, Save}

// randomOrder changes at every step in some schedules, seldom in others. Requests
// begin early, or they would not overlap.
func randomOrder(r *rand.Rand) Choose {
	stay, last := r.IntN(3), -1
	begun := map[int]bool{}
	return func(_ int, ready []int, _ func() uint64) int {
		if !slices.Contains(ready, last) || r.IntN(4) >= stay {
			last = ready[r.IntN(len(ready))]
		}
		for _, actor := range ready {
			if !begun[actor] && r.IntN(2) == 0 {
				last = actor
			}
		}
		begun[last] = true
		return last
	}
}

// randomCalls returns one to four calls. Those that change nothing of the
// session are rare and not the only one.
func randomCalls(r *rand.Rand) (calls []Call) {
	for range 1 + r.IntN(4) {
		c := Calls[r.IntN(len(Calls))]
		for slices.Contains(rare, c) && r.IntN(3) > 0 {
			c = Calls[r.IntN(len(Calls))]
		}
		calls = append(calls, c)
		if c == Panic {
			break
		}
	}
	if slices.Contains(rare, calls[0]) && len(calls) == 1 {
		calls = slices.Insert(calls, r.IntN(2), Get)
	}
	return calls
}

var rare = []Call{Write, Public, Detach, Panic, Reenter, Seconds, Minutes}
