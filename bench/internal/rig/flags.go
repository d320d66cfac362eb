package rig

import (
	"fmt"
	"slices"
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

// SplitNames reads names separated by commas, each of them one of known, and none
// twice.
func SplitNames(s string, known []string) (v []string, err error) {
	for name := range strings.SplitSeq(s, ",") {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("%q is none of %s", name, strings.Join(known, ", "))
		}
		if slices.Contains(v, name) {
			return nil, fmt.Errorf("%q stands there twice", name)
		}
		v = append(v, name)
	}
	return v, nil
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
