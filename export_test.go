package session

import (
	"io"
	"maps"
	"slices"
)

// ScanObject takes a JSON object apart as a record is; ok is false for anything
// else. Of duplicate keys the last counts.
func ScanObject(obj []byte) (values map[string][]byte, ok bool) {
	members := parseMembers(obj)
	values = make(map[string][]byte, len(members))
	for i := range members {
		values[members[i].name()] = members[i].value()
	}
	return values, members != nil
}

// For session_test.go, cookie_test.go, config_test.go and record_test.go.

// ParseTimeout reads SESSION_TIMEOUT.
var ParseTimeout = parseTimeout

// SetRandom replaces the source of session IDs.
func (m *Manager) SetRandom(r io.Reader) { m.rand = r }

// SignCookie returns the cookie value that names id.
func (m *Manager) SignCookie(id string) (string, error) {
	return m.codec.sign(m.cfg.Cookie.Name, id)
}

// FindCookie verifies Cookie header lines.
func (m *Manager) FindCookie(lines []string) (id string, old bool, bad int) {
	return m.codec.find(lines, m.cfg.Cookie.Name)
}

// ReservedKeys are the names that no Key may have.
func ReservedKeys() []string { return slices.Sorted(maps.Keys(reservedKeys)) }

// ParsedRecord is a record taken apart.
type ParsedRecord struct{ d document }

func ParseRecord(raw []byte) (*ParsedRecord, error) {
	d, err := parseDocument(raw)
	return &ParsedRecord{d}, err
}

func (p *ParsedRecord) Get(name string) []byte        { return p.d.get(name) }
func (p *ParsedRecord) Set(name string, value []byte) { p.d.set(name, value) }
func (p *ParsedRecord) Encode() []byte                { return p.d.encode() }

// Interpret reads everything that the manager reads from a record.
func (p *ParsedRecord) Interpret() {
	_, _ = p.d.maxAge()
	_, _ = p.d.created()
	_, _ = p.d.recorded()
	p.d.names()
}

// Waiting returns how many calls of each kind wait for a shared statement.
func (s *PostgresStore) Waiting() int {
	return s.shared.loads.Waiting() + s.shared.saves.Waiting() + s.shared.touches.Waiting() + s.shared.deletes.Waiting()
}
