package explore_test

// mutant is a small fault put into the code: what the explorer, or else a test of
// the root package, must find.
type mutant struct {
	file     string // of the root package
	old, new string
	off      string // what no longer works
	rule     string // whose mechanism that is, for those that always run
	postgres bool   // only a run on PostgreSQL can tell
}

// mutants are one in about each decision of the code that rules depend on.
var mutants = []mutant{
	{file: "commit.go", old: "s.next = s.next.withIdle(p.asked.idle)", new: "_ = s.next", off: "a timeout waits for its record"},
	{file: "session.go", old: "&& !s.superseded && !s.marked\n", new: "&& !s.superseded\n", off: "a logout follows a mark that it has met"},
	{file: "session.go", old: "if !known || s.othersLocked() {", new: "if !known {", off: "every cookie's session ends"},
	{file: "commit.go", old: "noCookie: late || at.early", new: "noCookie: late", off: "an early save's touch is made up for"},
	{file: "commit.go", old: "late: late, noCookie", new: "late: false, noCookie", off: "what comes after the header is late"},
	{file: "commit.go", old: "return s.failedLocked(p, err)", new: "_ = s.failedLocked(p, err); s.err = nil; return nil", off: "a save that fails is an error answer"},
	{file: "commit.go", old: "due := s.cookie.send && rec != nil", new: "due := false && s.cookie.send && rec != nil", off: "a cookie is confirmed", rule: "R2"},
	{file: "commit.go", old: "s.vanished, s.cookie.send = true, false", new: "s.vanished = true", off: "a cookie that is not confirmed is not sent"},
	{file: "commit.go", old: "case !made:\n\t\ts.cookie.send = false", new: "case false:\n\t\ts.cookie.send = false", off: "a held ID is not sent on a fault"},
	{file: "commit.go", old: "case s.next.creates() || s.superseded && s.next != nil:", new: "case s.next.creates():", off: "a change of a renewed session is an error"},
	{file: "commit.go", old: "s.vanished || !e.tooLong(i, left) && !e.touchDue", new: "s.vanished || !e.touchDue", off: "a reading request shortens what is too long", rule: "R7"},
	{file: "commit.go", old: "case nothing && err != nil:\n\t\treturn err\n\t}", new: "case nothing:\n\t\treturn err\n\t}", off: "a first use after the first byte extends", rule: "R6"},
	{file: "commit.go", old: "\t\t\ts.doomLocked(out.rec.id)\n", new: "", off: "Destroy during a save ends what that made"},
	{file: "commit.go", old: "\t\ts.made = true\n", new: "\t\ts.made = false\n", off: "an ID that was made is known as such"},
	{file: "commit.go", old: "\ts.alive = false\n", new: "", off: "what an earlier commit has found alive may be dead"},
	{file: "commit.go", old: "\t\ts.failLocked(&opError{\"Reload\", ended})\n", new: "\t\t_ = ended\n", off: "Reload of an ended session is an error"},
	{file: "headers.go", old: "if s.made && s.cookie.send {", new: "if false && s.made {", off: "errors and panics carry a made ID", rule: "R5"},
	{file: "headers.go", old: "(s.made || !s.detached && !(c.refreshOnly && public))", new: "(!s.detached && !(c.refreshOnly && public))", off: "a response left to the handler carries a made ID"},
	{file: "headers.go", old: "!(c.refreshOnly && public))", new: "!c.refreshOnly)", off: "a touch is told to the browser"},
	{file: "headers.go", old: "case c.expire:", new: "case c.expire && false:", off: "logout drops the cookie"},
	{file: "headers.go", old: "TTL: s.rec.remaining(now)", new: "TTL: s.m.cfg.IdleTimeout", off: "the cookie lives as long as the record"},
	{file: "headers.go", old: "range s.expireAs {", new: "range s.expireAs[:1] {", off: "logout drops every cookie"},
	{file: "state.go", old: "if c.update == nil && slices.ContainsFunc", new: "if slices.ContainsFunc", off: "an Update keeps those before it"},
	{file: "state.go", old: "\t\t\tc.value = v\n", new: "\t\t\t_ = v\n", off: "an Update counts from another record's value"},
	{file: "state.go", old: "\tq.renew = true\n", new: "\tq.renew = p.renews()\n", off: "Renew renews"},
	{file: "state.go", old: "\t\t\tc.value = v\n\t\t}\n\t\td.Set(c.name, c.value)\n", new: "\t\t\tc.value = v\n\t\t}\n", off: "an Update that is made again sees those before it"},
	{file: "session.go", old: "s.marked, s.superseded = errors.Is(err, ErrRenewed), renewedSince(s.began, rec, err)", new: "s.marked, s.superseded = errors.Is(err, ErrRenewed), false && renewedSince(s.began, rec, err)", off: "a renewed ID is told from an absent one", rule: "R4"},
	{file: "commit.go", old: "if s.calls.Inside(call.any) {\n\t\ts.failLocked", new: "if false {\n\t\ts.failLocked", off: "re-entry is detected", rule: "R8"},
	{file: "session.go", old: "\ts.failLocked(&opError{what, ErrHeaderSent})\n", new: "", off: "a late Renew or login aborts", rule: "R1"},
	{file: "session.go", old: "known := s.load == loadedNow && s.err == nil && !s.superseded", new: "known := s.load == loadedNow && s.err == nil", off: "Destroy ends a session renewed meanwhile"},
	{file: "session.go", old: "\ts.presented, s.superseded = s.presented[:0], false // a later Set begins anew\n\ts.forgetLocked()\n", new: "\ts.presented, s.superseded = s.presented[:0], false // a later Set begins anew\n", off: "Destroy drops the record"},
	{file: "session.go", old: "\t\ts.failLocked(&opError{\"load\", err})\n\tdefault:", new: "\tdefault:", off: "an outage is not a logout"},
	{file: "merge.go", old: "if u.fresh || !u.p.asked.any() {", new: "if true {", off: "an equal Set looks whether it still is", rule: "R1"},
	{file: "merge.go", old: "u.change(try > 0 || u.guess || u.fresh)", new: "u.change(false)", off: "an Update runs again at a merge"},
	{file: "merge.go", old: "if u.doubt != nil && u.p.asked.renew {\n\t\t\tif rec", new: "if false {\n\t\t\tif rec", off: "a renewal without an answer is found out"},
	{file: "merge.go", old: "happened, known := now.SavedBy(u.tag, u.doubt)", new: "happened, known := false, true", off: "a tag tells a save of one's own"},
	{file: "merge.go", old: "\t\tc.Shorten = true\n", new: "", off: "SetIdleTimeout may shorten"},
	{file: "merge.go", old: "moved := c.TTL > 0 && !u.p.noRefresh()", new: "moved := false && !u.p.noRefresh()", off: "a save that extends tells the browser"},
	{file: "merge.go", old: "out.cookie.send = c.NewID != \"\" ||", new: "out.cookie.send =", off: "a renewal tells the browser"},
	{file: "engine.go", old: "\t\tttl -= e.touchInterval(i)\n", new: "", off: "a touch without a cookie is short by an interval", rule: "R6"},
	{file: "engine.go", old: "return i.own && i.timeout > 0 &&", new: "return i.own && i.timeout < 0 &&", off: "a record that has too long is shortened", rule: "R7"},
	{file: "engine.go", old: "return out, &opError{\"destroy\", e.countError(err)}", new: "continue", off: "a logout that fails is an error"},
	{file: "engine.go", old: "\tif !login {", new: "\tif false && !login {", off: "only a login begins anew", rule: "R4"},
	{file: "engine.go", old: "asked, err := p.asked.rebase(nil)", new: "asked, err := p.asked, error(nil)", off: "a fresh session has nothing of the renewed one"},
	{file: "engine.go", old: "out.cookie.send, out.fresh, out.alive = true, true, true", new: "out.fresh, out.alive = true, true", off: "a new session tells the browser"},
	{file: "engine.go", old: "cookieless := p.noCookie || p.public", new: "cookieless := p.noCookie", off: "a public page's touch is short by an interval"},
	{file: "engine.go", old: "return idle{max(own, 0), true}", new: "return idle{max(own, 0)*0 + e.limits.idleTimeout, true}", off: "a session's own idle timeout counts"},
	{file: "load.go", old: "return began.Before(renewed.Add(renewGrace))", new: "return began.Before(renewed)", off: "a renewal counts for a while"},
	{file: "load.go", old: "return time.Since(began) > markLife", new: "return false", off: "a request older than marks counts as renewed"},
	{file: "load.go", old: "\t\tif rec.left <= 0 {", new: "\t\tif false {", off: "a mark without its time counts"},
	{file: "load.go", old: "case a.err == nil:\n\t\t\treturn i, a.loaded, nil", new: "case a.err == nil:\n\t\t\tif i > 0 {\n\t\t\t\tcontinue\n\t\t\t}\n\t\t\treturn i, a.loaded, nil", off: "the first live record wins"},
	{file: "load.go", old: "case errors.Is(a.err, ErrRenewed) && !errors.Is(err, ErrRenewed):", new: "case false:", off: "one renewed ID of several counts"},
	{file: "store_memory.go", old: "for r.renewedTo != \"\" {", new: "for false {", off: "Delete follows marks", rule: "R3"},
	{file: "store_memory.go", old: "s.records[id] = memoryRecord{expiresAt: now.Add(markLife), renewedTo: c.NewID}", new: "delete(s.records, id)", off: "a renewal leaves a mark", rule: "R3"},
	{file: "store_memory.go", old: "return Record{TTL: r.expiresAt.Sub(now)}, ErrRenewed", new: "return Record{}, ErrNotFound", off: "a mark is told from nothing"},
	{file: "store_memory.go", old: "if !bytes.Equal(r.data, c.Old) {", new: "if false {", off: "an Update compares"},
	{file: "store_memory.go", old: "r.extend(now.Add(ttl), false)", new: "r.extend(now.Add(ttl), true)", off: "a touch never shortens"},
	{file: "store_mark.go", old: "return Record{TTL: rec.TTL}, ErrRenewed", new: "return Record{TTL: 0 * rec.TTL}, ErrNotFound", off: "PostgreSQL's mark is told from nothing", postgres: true},
	{file: "store_mark.go", old: "\t\t\tid = next\n\t\t\tcontinue\n", new: "\t\t\t_ = next\n\t\t\treturn nil\n", off: "PostgreSQL's Delete follows marks", postgres: true},
}
