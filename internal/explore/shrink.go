package explore

import "slices"

// shrinkOrders bounds the orders in which a smaller script is tried.
const shrinkOrders = 60

// Shrink returns the smallest script that it finds by leaving things out of one
// that breaks a rule, and its history.
func Shrink(run Runner, script *Script, rule string) (*Script, *History) {
	best, h := script.Clone(), (*History)(nil)
	try := func(s Script, orders int) bool {
		if got := breaks(run, &s, rule, orders); got != nil {
			h, best = got, s
			best.Steps = slices.Clone(got.Steps)
			return true
		}
		return false
	}
	if !try(best.Clone(), 0) {
		return script, run(script, nil)
	}
	for smaller := true; smaller; {
		smaller = false
		for _, s := range simpler(&best) {
			if smaller = try(s, shrinkOrders); smaller {
				break
			}
		}
	}
	straighten(&best, func(s Script) bool { return try(s, 0) })
	return &best, h
}

// breaks runs a script, by its own steps and then in other orders, until it
// breaks the rule.
func breaks(run Runner, s *Script, rule string, orders int) (found *History) {
	h := run(s, nil)
	if Broken(Breaches(h), rule) {
		return h
	}
	head := s.Clone()
	head.Steps = nil
	All(run, &head, orders, func(h *History) bool {
		if Broken(Breaches(h), rule) {
			found = h
		}
		return found == nil
	})
	return found
}

// simpler returns scripts with one thing less.
func simpler(s *Script) (all []Script) {
	add := func(change func(*Script)) {
		c := s.Clone()
		change(&c)
		all = append(all, c)
	}
	if s.Fault.Kind != "" {
		add(func(c *Script) { c.Fault = Fault{} })
	}
	for i := range s.Actors {
		if len(s.Actors) > 1 && (s.Fault.Kind == "" || s.Fault.Actor != i) {
			add(func(c *Script) { c.drop(i) })
		}
	}
	for i, calls := range s.Actors {
		for j := range calls {
			if !s.Outside(i) {
				add(func(c *Script) { c.Actors[i] = slices.Delete(c.Actors[i], j, j+1) })
			}
		}
	}
	if s.Setup != Fresh && s.Setup != None {
		add(func(c *Script) { c.Setup = Fresh })
	}
	for i := range s.Actors { // named by what they do
		if i > 0 && slices.Compare(s.Actors[i-1], s.Actors[i]) > 0 && !s.Outside(i) {
			add(func(c *Script) { c.swap(i) })
		}
	}
	for i, o := range s.options() {
		if *o.set {
			add(func(c *Script) { *c.options()[i].set = false })
		}
	}
	for i, calls := range s.Actors {
		for j, call := range calls {
			if plain := Plainer(call); plain != "" {
				add(func(c *Script) { c.Actors[i][j] = plain })
			}
		}
	}
	return all
}

// Plainer returns a call that does less of the same kind, "" without one.
func Plainer(c Call) Call {
	switch c {
	case Login:
		return Renew
	case UpdateNow:
		return Update
	case Update, SetLight:
		return SetDark
	case Minutes:
		return Seconds
	case Take, Delete, SetDark, Renew, IdleLong, IdleShort, Reload, Destroy, Bind:
		return Get
	}
	return ""
}

// drop takes an actor out, whom no fault strikes.
func (s *Script) drop(actor int) {
	s.Actors = slices.Delete(s.Actors, actor, actor+1)
	s.Steps = slices.DeleteFunc(s.Steps, func(a int) bool { return a == actor })
	for i := range s.Steps {
		if s.Steps[i] > actor {
			s.Steps[i]--
		}
	}
	if s.Fault.Actor > actor {
		s.Fault.Actor--
	}
}

// swap exchanges an actor and the one before.
func (s *Script) swap(actor int) {
	s.Actors[actor-1], s.Actors[actor] = s.Actors[actor], s.Actors[actor-1]
	other := map[int]int{actor - 1: actor, actor: actor - 1}
	for i, a := range s.Steps {
		if b, ok := other[a]; ok {
			s.Steps[i] = b
		}
	}
	if b, ok := other[s.Fault.Actor]; ok {
		s.Fault.Actor = b
	}
}

// straighten moves steps forward to where their actor has just moved, so that
// the order changes as seldom as it can.
func straighten(s *Script, holds func(Script) bool) {
	for i := 1; i < len(s.Steps); i++ {
		at := slices.Index(s.Steps[i:], s.Steps[i-1])
		if at <= 0 {
			continue
		}
		c := s.Clone()
		step := c.Steps[i+at]
		c.Steps = slices.Insert(slices.Delete(c.Steps, i+at, i+at+1), i, step)
		holds(c) // or it stays as it is
	}
}
