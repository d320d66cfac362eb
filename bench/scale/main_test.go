package main

import (
	"testing"

	"github.com/pgsession/session/bench/internal/rig"
)

func TestMain(m *testing.M) { rig.RunTests(m) }
