package admintest_test

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessionadmin"
)

// maxPicture is how many bytes a picture of the README may have.
const maxPicture = 200 << 10

// TestPictures takes the pictures of the README, in light and dark, and keeps them
// with SESSION_PICTURES=1; else it looks whether those that are kept are as they
// should be.
func TestPictures(t *testing.T) {
	keep := os.Getenv("SESSION_PICTURES") != ""
	s := newSite(t)
	s.fill(4200)
	s.use()
	at, stats := busyDay(time.Now())
	remember(t, s.admin, at, stats)
	b := newBrowser(t)
	b.visit(s.url + "/login/admin")
	for _, scheme := range []string{"light", "dark"} {
		b.look(scheme, 1280, 900, 1)
		if code := b.visit(s.url + "/admin/sessions/?span=24h"); code != 200 {
			t.Fatalf("the overview: got %d, want 200; the log:\n%s", code, s.log)
		}
		b.wantText("Live sessions", "Created and ended", "When the live sessions began", "Heap-only updates", "24 hours")
		picture, err := png.Decode(bytes.NewReader(b.picture(1280)))
		must(t, err)
		if size := picture.Bounds().Size(); size.X != 1280 || size.Y < 1500 || size.Y > 3000 {
			t.Errorf("%s: got a picture of %v, want the whole page", scheme, size)
		}
		file := filepath.Join("..", "..", "docs", "images", "admin-"+scheme+".png")
		if keep {
			must(t, os.MkdirAll(filepath.Dir(file), 0o755))
			must(t, os.WriteFile(file, fewColours(t, picture), 0o644))
		}
		kept, err := os.Stat(file)
		must(t, err)
		if kept.Size() > maxPicture {
			t.Errorf("%s: got %d bytes, want at most %d", file, kept.Size(), maxPicture)
		}
	}
}

// fewColours writes a picture with the 256 colours that it has most of: a third of
// the bytes, and nobody sees the difference.
func fewColours(t *testing.T, picture image.Image) []byte {
	t.Helper()
	img := image.NewRGBA(picture.Bounds())
	draw.Draw(img, img.Rect, picture, img.Rect.Min, draw.Src)
	count := map[color.RGBA]int{}
	for i := 0; i < len(img.Pix); i += 4 {
		count[color.RGBA{img.Pix[i], img.Pix[i+1], img.Pix[i+2], img.Pix[i+3]}]++
	}
	most := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int { return count[b] - count[a] })
	few := image.NewPaletted(img.Rect, nil)
	for _, c := range most[:min(256, len(most))] {
		few.Palette = append(few.Palette, c)
	}
	nearest := map[color.RGBA]uint8{}
	for _, c := range most {
		nearest[c] = uint8(few.Palette.Index(c))
	}
	for i := range few.Pix {
		p := img.Pix[4*i:]
		few.Pix[i] = nearest[color.RGBA{p[0], p[1], p[2], p[3]}]
	}
	var b bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	must(t, encoder.Encode(&b, few))
	return b.Bytes()
}

// busyDay is what a manager would have counted in a shop's last day, minute by minute.
func busyDay(now time.Time) (at []time.Time, stats []session.Stats) {
	rng := rand.New(rand.NewPCG(4, 2))
	var s session.Stats
	some := func(mean float64) uint64 { return uint64(max(0, math.Round(mean+rng.NormFloat64()*math.Sqrt(mean)))) }
	pruneAt := 7
	for t := now.Truncate(time.Minute).Add(-24 * time.Hour); !t.After(now); t = t.Add(time.Minute) {
		hour := float64(t.Hour()) + float64(t.Minute())/60
		busy := math.Exp(-math.Pow((hour-11)/3.4, 2)) + 0.8*math.Exp(-math.Pow((hour-19.5)/2.6, 2)) + 0.06
		created := some(16 * busy)
		s.Creates += created
		s.Renewals += some(11 * busy)
		s.Loads += some(900 * busy)
		s.Misses += some(9 * busy)
		s.Saves += some(140 * busy)
		s.Touches += some(310 * busy)
		s.Conflicts += some(0.5 * busy)
		s.Destroys += some(6 * busy)
		s.BadCookies += some(0.15 * busy)
		if pruneAt--; pruneAt == 0 {
			pruneAt = 8 + rng.IntN(15)
			s.Pruned += some(14 + 60*busy)
		}
		at, stats = append(at, t), append(stats, s)
	}
	return at, stats
}

// remember gives the pages a past, which they could only have by waiting for it.
func remember(t *testing.T, h *sessionadmin.Handler, at []time.Time, stats []session.Stats) {
	t.Helper()
	must(t, h.Close()) // nothing else is noted down meanwhile
	history := open(open(reflect.ValueOf(h).Elem().FieldByName("history")).Elem())
	last := stats[len(stats)-1]
	open(history.FieldByName("stats")).Set(reflect.ValueOf(func() session.Stats { return last }))
	samples := open(history.FieldByName("samples"))
	past := reflect.MakeSlice(samples.Type(), len(at), len(at))
	for i := range at {
		open(past.Index(i).FieldByName("at")).Set(reflect.ValueOf(at[i]))
		open(past.Index(i).FieldByName("stats")).Set(reflect.ValueOf(stats[i]))
	}
	samples.Set(past)
}

// open makes an unexported field writable.
func open(v reflect.Value) reflect.Value {
	return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
}
