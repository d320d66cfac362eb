package rig_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session/bench/internal/rig"
)

func TestGrounds(t *testing.T) {
	for _, tt := range []struct {
		name string
		want rig.Ground
	}{
		{"disk", rig.Ground{Name: "disk"}},
		{"memory", rig.Ground{Name: "memory", Data: "/dev/shm"}},
		{"nofsync", rig.Ground{Name: "nofsync", NoFsync: true}},
		{"1ms", rig.Ground{Name: "1ms", Latency: time.Millisecond}},
	} {
		if got, err := rig.ParseGround(tt.name); err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v, want %+v", tt.name, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "Disk", "0s", "-1ms", "5", "disk,", "disk,disk", "memory,1ms,fast"} {
		if got, err := rig.SplitGrounds(bad); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, got)
		}
	}
}

func TestNamesAreKnownNames(t *testing.T) {
	known := []string{"/read", "/write"}
	if got, err := rig.SplitNames("/write,/read", known); err != nil || !slices.Equal(got, []string{"/write", "/read"}) {
		t.Errorf("got %q, %v, want both", got, err)
	}
	for bad, named := range map[string]string{"read": `"read"`, "/read,": `""`, "": `""`, "/read, /write": `" /write"`, "/read,/read": `"/read"`} {
		if got, err := rig.SplitNames(bad, known); err == nil || !strings.Contains(err.Error(), named) {
			t.Errorf("%q: got %q, error %v, want one that names %s", bad, got, err, named)
		}
	}
}

func TestFileSystem(t *testing.T) {
	const mounts = `/dev/vda / ext4 rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
/dev/vdb /tmp/data xfs rw 0 0
overlay / overlay rw 0 0
`
	for dir, want := range map[string]string{
		"/tmp":            "overlay on overlay", // mounted over what was there before
		"/dev/shm":        "tmpfs on tmpfs",
		"/dev/shmoo":      "overlay on overlay",
		"/tmp/data/below": "xfs on /dev/vdb",
	} {
		if got := rig.FileSystemIn(mounts, dir); got != want {
			t.Errorf("%s: got %q, want %q", dir, got, want)
		}
	}
	if got := rig.FileSystemIn("", "/tmp"); got != "" {
		t.Errorf("no mounts: got %q, want none", got)
	}
}

// When a change is durable is what the variants' labels are about.
func TestDurable(t *testing.T) {
	for name, want := range map[string]string{
		rig.Session: "at once", rig.SelectUpdate: "at once", rig.ScsRedis: "minutes later", "scs-redis-everysec": "a second later",
		rig.ScsRedisAlways: "at once", rig.ScsMem: "never", rig.None: "never",
	} {
		if got := rig.FindVariant(name).Durable(); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for _, v := range rig.Variants {
		if v.Appendfsync != "" && (v.Store != rig.InRedis || !strings.Contains(v.Label, "appendfsync "+v.Appendfsync)) {
			t.Errorf("%s: got the label %q in %q, want its appendfsync %q named", v.Name, v.Label, v.Store, v.Appendfsync)
		}
	}
}
