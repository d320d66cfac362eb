// Package shard knows in which shard of a table that Citus has distributed by a text
// a row is: by PostgreSQL's hash of that text, computed here, and the shards' ranges.
package shard

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"sort"
)

// Hash is PostgreSQL's hashtext of a text whose collation is deterministic, on a
// server whose bytes are in the usual order (little-endian). Bob Jenkins' lookup3.
func Hash(text string) int32 {
	k := []byte(text)
	a := 0x9e3779b9 + uint32(len(k)) + 3923095 // #nosec G115 -- as hash_bytes has it
	b, c := a, a
	for len(k) >= 12 {
		a += binary.LittleEndian.Uint32(k)
		b += binary.LittleEndian.Uint32(k[4:])
		c += binary.LittleEndian.Uint32(k[8:])
		a, b, c = mix(a, b, c)
		k = k[12:]
	}
	var rest [12]byte
	copy(rest[:8], k)
	if len(k) > 8 {
		copy(rest[9:], k[8:]) // the lowest byte of c is the length's
	}
	a += binary.LittleEndian.Uint32(rest[:])
	b += binary.LittleEndian.Uint32(rest[4:])
	c += binary.LittleEndian.Uint32(rest[8:])
	return int32(final(a, b, c)) // #nosec G115 -- a hash
}

func mix(a, b, c uint32) (uint32, uint32, uint32) {
	rot := bits.RotateLeft32
	a, c = (a-c)^rot(c, 4), c+b
	b, a = (b-a)^rot(a, 6), a+c
	c, b = (c-b)^rot(b, 8), b+a
	a, c = (a-c)^rot(c, 16), c+b
	b, a = (b-a)^rot(a, 19), a+c
	c, b = (c-b)^rot(b, 4), b+a
	return a, b, c
}

func final(a, b, c uint32) uint32 {
	rot := bits.RotateLeft32
	c = (c ^ b) - rot(b, 14)
	a = (a ^ c) - rot(c, 11)
	b = (b ^ a) - rot(a, 25)
	c = (c ^ b) - rot(b, 16)
	a = (a ^ c) - rot(c, 4)
	b = (b ^ a) - rot(a, 14)
	return (c ^ b) - rot(b, 24)
}

// Ranges are where the shards of a table begin, in their order: each goes on to
// where the next begins. They never change.
type Ranges struct{ from []int32 }

// NewRanges returns the ranges of shards that begin at these hashes, in any order.
func NewRanges(from []int32) Ranges {
	from = slices.Clone(from)
	slices.Sort(from)
	return Ranges{slices.Compact(from)}
}

// Of returns the number of the shard in which a row of this text is, from 0 on.
func (r Ranges) Of(text string) int {
	hash := Hash(text)
	return max(0, sort.Search(len(r.from), func(i int) bool { return r.from[i] > hash })-1)
}

// Len is how many shards there are.
func (r Ranges) Len() int { return len(r.from) }
