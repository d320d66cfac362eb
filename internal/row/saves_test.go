package row_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// changed returns how many bytes of a record PostgreSQL logs: those between the
// beginning and the end that the old one has too. All of them where the length is
// another, for it stands before the record and what follows moves.
func changed(old, next []byte) (n int) {
	if len(old) != len(next) {
		return len(next)
	}
	from, end := 0, len(next)
	for from < end && old[from] == next[from] {
		from++
	}
	for end > from && old[end-1] == next[end-1] {
		end--
	}
	return end - from
}

// save is what one Update of keys does to a record. A value of nil is deleted.
type save struct {
	program int
	keys    []string
	values  []string
}

func update(key, value string) save { return save{keys: []string{key}, values: []string{value}} }

func (s save) by(program int) save {
	s.program = program
	return s
}

func (s save) of(key, value string) save {
	return save{s.program, append(s.keys, key), append(s.values, value)}
}

// A save by Key.Update changes a short stretch of a long record, wherever its key
// stands, because the tags stand beside the key.
func TestSavesAreShort(t *testing.T) {
	var facts strings.Builder
	for i := range 12 {
		fmt.Fprintf(&facts, `,"k%02d":"%064d"`, i, i)
	}
	const tags = `,"__saves":["prog00000000"]`
	plain := `{` + recordCookie + `,"n":10` + facts.String() + `,"last":20}`
	for _, c := range []struct {
		name  string
		text  string
		saves []save
		most  []int // bytes changed by each; 0: it may be all
	}{
		{"the first key", plain, []save{update("n", "11"), update("n", "12"), update("n", "13")}, []int{0, 20, 20}},
		{"the last key", plain, []save{update("last", "21"), update("last", "22")}, []int{0, 30}},
		{"a key in the middle", plain, []save{update("k05", `"a"`), update("k05", `"b"`)}, []int{0, 30}},
		{"a new key", plain, []save{update("new", "1"), update("new", "2")}, []int{0, 30}},
		{"tags at the end, as they were once", strings.TrimSuffix(plain, "}") + tags + "}", []save{update("n", "11"), update("n", "12")}, []int{0, 20}},
		{"another key, then again", plain, []save{update("n", "11"), update("last", "21"), update("last", "22"), update("n", "12"), update("n", "13")}, []int{0, 0, 30, 0, 20}},
		{"two keys at once", `{` + recordCookie + `,"n":10,"m":10` + facts.String() + `}`, []save{update("n", "11").of("m", "11"), update("n", "12").of("m", "12"), update("n", "13")}, []int{0, 40, 40}},
		{"a long value that changes at its end", `{"list":[` + strings.Repeat("1,", 300) + `10]` + facts.String() + `}`, []save{
			update("list", `[`+strings.Repeat("1,", 300)+`11]`), update("list", `[`+strings.Repeat("1,", 300)+`12]`),
		}, []int{0, 30}},
		{"a long value that changes at its beginning", `{"list":[10` + strings.Repeat(",1", 300) + `]` + facts.String() + `}`, []save{
			update("list", `[11`+strings.Repeat(",1", 300)+`]`), update("list", `[12`+strings.Repeat(",1", 300)+`]`),
		}, []int{0, 30}},
		{"eight programs", plain, []save{
			update("n", "11").by(1), update("n", "12").by(2), update("n", "13").by(3), update("n", "14").by(4), update("n", "15").by(5),
			update("n", "16").by(6), update("n", "17").by(7), update("n", "18").by(8), update("n", "19").by(1), update("n", "20").by(5), update("n", "21").by(5),
		}, []int{0, 0, 0, 0, 0, 0, 0, 0, 140, 140, 20}},
	} {
		r := parse(t, c.text)
		for i, s := range c.saves {
			next := r.Clone()
			for k, key := range s.keys {
				next.Set(key, []byte(s.values[k]))
			}
			next.AddSave(fmt.Sprintf("prog%02d%06d", s.program, i), &r, s.keys)
			text := next.Encode()
			if got := changed(r.Encode(), text); c.most[i] > 0 && got > c.most[i] {
				t.Errorf("%s, save %d: got %d bytes changed, want %d at most:\n%s\n%s", c.name, i, got, c.most[i], r.Encode(), text)
			}
			r = parse(t, string(text))
		}
	}
}

// What a save does not name keeps its place and its bytes.
func TestSavesMoveOnlyTheTags(t *testing.T) {
	for _, c := range []struct {
		name, text string
		keys       []string
		want       string
	}{
		{"before a short value", `{"a":1,"b":2,"c" : 3}`, []string{"b"}, `{"a":1,@,"b":2,"c" : 3}`},
		{"they stand before it", `{"a":1,@,"b":2,"c":3}`, []string{"b"}, `{"a":1,@,"b":2,"c":3}`},
		{"they stand behind it", `{"a":1,"b":2,@,"c":3}`, []string{"b"}, `{"a":1,"b":2,@,"c":3}`},
		{"they stand behind another key", `{"a":1,@,"b":2,"c":3}`, []string{"c"}, `{"a":1,"b":2,@,"c":3}`},
		{"they stand beside one of two", `{"a":1,@,"b":2,"c":3}`, []string{"a", "c"}, `{"a":1,@,"b":2,"c":3}`},
		{"the key is deleted", `{"a":1,@,"b":2}`, []string{"c"}, `{"a":1,@,"b":2}`},
		{"the only key is deleted", `{"a":1}`, []string{"c"}, `{"a":1,@}`},
		{"a key among duplicates", `{"a":1,"b":2,"a":3,"c":4}`, []string{"a"}, `{"a":1,"b":2,@,"a":3,"c":4}`},
		{"the last key, for the first time", `{"a":1,"b":2}`, []string{"b"}, `{"a":1,"b":2,@}`},
		{"no key", `{"a":1}`, nil, `{"a":1,@}`},
	} {
		r := parse(t, strings.ReplaceAll(c.text, "@", `"__saves":["prog000"]`))
		before := r.Clone()
		r.AddSave("prog001", &before, c.keys)
		want := strings.ReplaceAll(c.want, "@", `"__saves":["prog001"]`)
		if got := r.Encode(); !bytes.Equal(got, []byte(want)) {
			t.Errorf("%s: got %s, want %s", c.name, got, want)
		}
	}
}
