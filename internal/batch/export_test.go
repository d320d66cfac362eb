package batch

// Armed reports whether a timer runs, be it one that was forgotten.
func (g *Group[Q, A]) Armed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.armed || g.timer != nil && g.timer.Stop()
}
