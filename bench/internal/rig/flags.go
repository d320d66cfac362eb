package rig

import (
	"fmt"
	"strconv"
	"strings"
)

// IsShort looks for -short in a program's arguments, before other flags get their
// defaults from it.
func IsShort(args []string) bool {
	for _, a := range args {
		switch strings.TrimPrefix(strings.TrimPrefix(a, "-"), "-") {
		case "short", "short=true":
			return strings.HasPrefix(a, "-")
		}
	}
	return false
}

// JoinInts is SplitInts' inverse.
func JoinInts(v []int) string {
	var s []string
	for _, n := range v {
		s = append(s, strconv.Itoa(n))
	}
	return strings.Join(s, ",")
}

// SplitInts reads numbers from 1, separated by commas.
func SplitInts(s string) (v []int, err error) {
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a whole number from 1", part)
		}
		v = append(v, n)
	}
	return v, nil
}
