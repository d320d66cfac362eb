package batch

// Armed reports whether a timer runs.
func (g *Group[Q, A]) Armed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.armed
}
