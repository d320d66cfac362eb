package session

import "io"

// ParseTimeout reads SESSION_TIMEOUT.
var ParseTimeout = parseTimeout

// SetRandom replaces the source of session IDs.
func (m *Manager) SetRandom(r io.Reader) { m.engine.rand = r }

// SignCookie returns the cookie value that names id.
func (m *Manager) SignCookie(id string) (string, error) {
	return m.codec.Sign(m.cfg.Cookie.Name, id)
}

// Waiting returns how many calls of each kind wait for a shared statement.
func (s *PostgresStore) Waiting() int {
	return s.shared.loads.Waiting() + s.shared.saves.Waiting() + s.shared.touches.Waiting() + s.shared.deletes.Waiting()
}
