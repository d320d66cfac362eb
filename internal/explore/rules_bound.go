package explore

// boundIsBound is R9: the key of a session that is bound is needed by whoever comes
// with its cookie, whatever was under way; and nobody takes the binding away but
// who asks for another one.
func boundIsBound(h *History, breach func(string, ...any)) {
	if !h.Script.Bound || len(h.Hung) > 0 {
		return
	}
	if h.Next.Bound && h.Next.Stolen {
		breach("a copy of %s without the device's key is let in", h.Next.ID)
	}
	if !h.Script.Has(Bind) && h.Script.Setup != None && h.Next.User && h.lineage(h.Next.ID) == 1 && !h.Next.Bound {
		breach("%s has lost its binding", h.Next.ID)
	}
}
