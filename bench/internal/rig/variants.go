package rig

import (
	"slices"
	"strings"
)

// Routes of every server that are measured.
const (
	Public = "/public" // does not use the session
	Read   = "/read"
	Write  = "/write"
	New    = "/new" // a visitor without a cookie
)

// Routes lists them in the order of reports.
var Routes = []string{Public, New, Read, Write}

// Where a variant keeps its sessions.
const (
	InPostgres = "PostgreSQL"
	InRedis    = "Redis"
	InMemory   = "memory"
)

// Variant is a server under measurement.
type Variant struct {
	Name  string // for flags and files
	Label string // for people
	Store string // one of the above, or empty
	// Appendfsync is that setting of the variant's own Redis; empty means Redis as it
	// comes.
	Appendfsync string
	Env         []string // beside the usual
	// Program is the binary's name, or express.
	Program string
	// Routes are those worth measuring; nil means all.
	Routes []string
	// Ours marks this library.
	Ours bool
	// Limit marks servers that are no session library, but what one could be
	// measured by.
	Limit bool
}

// Names of variants that reports compare with.
const (
	Session        = "session"
	SessionAlone   = "session-alone"
	None           = "none"
	Select         = "select"
	SelectUpdate   = "selectupdate"
	ScsRedis       = "scs-redis"
	ScsRedisAlways = "scs-redis-always"
	ScsMem         = "scs-mem"
	ScsPgx         = "scs-pgx"
	ExpressServer  = "express"
)

// Variants are all of them, in the order of reports.
var Variants = []Variant{
	{Name: Session, Label: "this library", Store: InPostgres, Program: "server", Ours: true},
	{Name: SessionAlone, Label: "this library, not sharing", Store: InPostgres, Program: "server", Ours: true, Env: []string{"BENCH_SHARING=off"}, Routes: []string{Read, Write}},
	{Name: "session-encrypt", Label: "this library, Encrypt", Store: InPostgres, Program: "server", Ours: true, Env: []string{"SESSION_ENCRYPT=true"}, Routes: []string{Read, Write}},
	{Name: None, Label: "no session at all", Program: "none", Limit: true},
	{Name: Select, Label: "one prepared SELECT", Store: InPostgres, Program: "select", Limit: true, Routes: []string{Read}},
	{Name: SelectUpdate, Label: "SELECT + UPDATE", Store: InPostgres, Program: "selectupdate", Limit: true, Routes: []string{Read, Write}},
	{Name: ScsPgx, Label: "scs + pgxstore", Store: InPostgres, Program: "scs-pgx"},
	{Name: "scs-pgx-idle", Label: "scs + pgxstore, IdleTimeout", Store: InPostgres, Program: "scs-pgx", Env: []string{"IDLE_TIMEOUT=24h"}},
	{Name: ScsRedis, Label: "scs + Redis", Store: InRedis, Program: "scs-redis"},
	{Name: "scs-redis-everysec", Label: "scs + Redis, appendfsync everysec", Store: InRedis, Appendfsync: "everysec", Program: "scs-redis", Routes: []string{Read, Write}},
	{Name: ScsRedisAlways, Label: "scs + Redis, appendfsync always", Store: InRedis, Appendfsync: "always", Program: "scs-redis", Routes: []string{Read, Write}},
	{Name: ScsMem, Label: "scs + memstore", Store: InMemory, Program: "scs-mem"},
	{Name: "gorilla-pgstore", Label: "gorilla + pgstore", Store: InPostgres, Program: "gorilla-pgstore"},
	{Name: ExpressServer, Label: "Express + connect-pg-simple", Store: InPostgres, Program: "express"},
}

// Has reports whether a route is measured on the variant.
func (v *Variant) Has(route string) bool {
	return v.Routes == nil || slices.Contains(v.Routes, route)
}

// Durable says from when on an answered change outlives the machine's power.
func (v *Variant) Durable() string {
	switch {
	case v.Store == InPostgres, v.Appendfsync == "always":
		return "at once"
	case v.Appendfsync == "everysec":
		return "a second later"
	case v.Store == InRedis:
		return "minutes later"
	}
	return "never"
}

// Database returns the name of the variant's own database.
func (v *Variant) Database() string { return "bench_" + strings.ReplaceAll(v.Name, "-", "_") }

// VariantNames lists the names of all of them.
func VariantNames() (names []string) {
	for _, v := range Variants {
		names = append(names, v.Name)
	}
	return names
}

// FindVariant returns the variant of a name, nil if there is none.
func FindVariant(name string) *Variant {
	for i := range Variants {
		if Variants[i].Name == name {
			return &Variants[i]
		}
	}
	return nil
}
