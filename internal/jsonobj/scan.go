package jsonobj

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
)

const (
	// beyond is the index that the functions below return where the text is not
	// JSON. It is after every end, also when something is added to it.
	beyond = math.MaxInt / 2

	maxDepth = 10000 // as in encoding/json
)

// appendMembers reads an object as RFC 8259 has it, as strictly as [json.Valid]
// does but in one pass with the splitting: half the cost of a read otherwise.
func appendMembers(members []member, obj []byte) []member {
	if at(obj, 0) != '{' {
		return nil
	}
	i := skipSpace(obj, 1)
	if at(obj, i) == '}' && i+1 == len(obj) {
		return members
	}
	for {
		keyEnd := skipString(obj, i)
		value := skipColon(obj, keyEnd)
		end := skipValue(obj, value, 1)
		if end > len(obj) {
			return nil
		}
		members = append(members, member{text: obj[i:end:end], keyEnd: keyEnd - i, valueAt: value - i})
		i = skipSpace(obj, end)
		switch at(obj, i) {
		case ',':
			i = skipSpace(obj, i+1)
		case '}':
			if i+1 != len(obj) {
				return nil
			}
			return members
		default:
			return nil
		}
	}
}

// at returns the byte at i, 0 after the end, which is no part of JSON's syntax.
func at(b []byte, i int) byte {
	if i < len(b) {
		return b[i]
	}
	return 0
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipColon returns the index of the value after the key that ends at i.
func skipColon(b []byte, i int) int {
	i = skipSpace(b, i)
	if at(b, i) != ':' {
		return beyond
	}
	return skipSpace(b, i+1)
}

// skipString returns the index after the string that begins at i.
func skipString(b []byte, i int) int {
	if at(b, i) != '"' {
		return beyond
	}
	for i = skipPlain(b, i+1); i < len(b); i = skipPlain(b, i+1) {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return beyond
		case c == '\\':
			i++
			switch at(b, i) {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for range 4 {
					i++
					if !isHex(at(b, i)) {
						return beyond
					}
				}
			default:
				return beyond
			}
		}
	}
	return beyond
}

// skipPlain returns the index of the next byte that ends a run of a string's plain
// ones, eight of which are looked at at a time, for most of a record is strings.
// Near the end of b it returns i.
func skipPlain(b []byte, i int) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quotes, escapes := w^ones*'"', w^ones*'\\'
		// The top bit of each byte that is less than ' ', or zero; of bytes after the
		// first that is, it may be wrong.
		ends := ((w-ones*' ')&^w | (quotes-ones)&^quotes | (escapes-ones)&^escapes) & tops
		if ends != 0 {
			return i + bits.TrailingZeros64(ends)/8
		}
	}
	return i
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// skipValue returns the index after the value that begins at i, inside depth
// objects and arrays.
func skipValue(b []byte, i, depth int) int {
	switch at(b, i) {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipNested(b, i, depth+1)
	case 't':
		return skipWord(b, i, "true")
	case 'f':
		return skipWord(b, i, "false")
	case 'n':
		return skipWord(b, i, "null")
	}
	return skipNumber(b, i)
}

// skipNested returns the index after the object or array that begins at i.
func skipNested(b []byte, i, depth int) int {
	if depth > maxDepth {
		return beyond
	}
	object, end := b[i] == '{', b[i]+2 // the closing bracket, in ASCII
	i = skipSpace(b, i+1)
	if at(b, i) == end {
		return i + 1
	}
	for {
		if object {
			i = skipColon(b, skipString(b, i))
		}
		i = skipSpace(b, skipValue(b, i, depth))
		switch at(b, i) {
		case end:
			return i + 1
		case ',':
			i = skipSpace(b, i+1)
		default:
			return beyond
		}
	}
}

func skipWord(b []byte, i int, word string) int {
	if !bytes.HasPrefix(b[i:], []byte(word)) {
		return beyond
	}
	return i + len(word)
}

func skipNumber(b []byte, i int) int {
	if at(b, i) == '-' {
		i++
	}
	if at(b, i) == '0' {
		i++
	} else {
		i = skipDigits(b, i)
	}
	if at(b, i) == '.' {
		i = skipDigits(b, i+1)
	}
	if c := at(b, i); c == 'e' || c == 'E' {
		if i++; at(b, i) == '+' || at(b, i) == '-' {
			i++
		}
		i = skipDigits(b, i)
	}
	return i
}

// skipDigits wants one digit at least.
func skipDigits(b []byte, i int) int {
	start := i
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	if i == start {
		return beyond
	}
	return i
}
