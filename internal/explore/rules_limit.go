package explore

import "slices"

// limitHolds is R11: of a user's sessions no more are left than Config.MaxPerUser
// allows, which is one here, and where every request has logged in the browser holds
// the one that is left. What is renewed while a login deletes is not found under its ID;
// that one waits for the next login.
func limitHolds(h *History, breach func(string, ...any)) {
	if !h.Script.Limited || h.Struck() || len(h.Hung) > 0 {
		return
	}
	for who := 1; who <= 2; who++ {
		sessions := map[int]bool{}
		for _, row := range h.Table {
			if row.Who == who {
				sessions[row.Lineage] = true
			}
		}
		if len(sessions) > 1 && !h.renewedBesideALook() {
			breach("user %d has %d sessions", who, len(sessions))
		}
	}
	requests := h.requests()
	if len(requests) == 0 || h.Script.Has(Revoke) || h.outlives() || h.visitorRenewed() || slices.ContainsFunc(requests, func(r *request) bool { return !r.logsIn(h) }) {
		return
	}
	if !h.Next.User {
		breach("all requests have logged in, and the browser holds a session that is over")
	}
}

// renewedBesideALook reports whether an ID was renewed while a login looked for the
// sessions over the limit.
func (h *History) renewedBesideALook() bool {
	looks := map[int]bool{}
	for i := range h.Events {
		e := &h.Events[i]
		switch {
		case e.Kind != Stores:
		case e.Op.NewID != "" && len(looks) > 0:
			return true
		case e.Op.Name == "Find":
			looks[e.Actor] = true
		case e.Op.Name != "DeleteFound":
			delete(looks, e.Actor)
		}
	}
	return false
}

// logsIn reports whether a request has logged in before its header left, and ended with
// that.
func (r *request) logsIn(h *History) bool {
	at := r.asked(h, Login, Enter)
	return at >= 0 && r.good() && at < r.at.header &&
		r.asked(h, EnterOther, Leave, Destroy, Detach, Public) < 0
}
