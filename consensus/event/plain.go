package event

// These look at eight bytes at a time, because nearly every byte of the log goes
// through them several times on every node.

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// zeroByte has a high bit set in the lowest byte of x that is zero, and none when
// there is none. x has no high bits set.
func zeroByte(x uint64) uint64 { return (x - ones) & highs }

// odd is not zero when one of the eight bytes is a control character, not ASCII,
// a quote or a backslash.
func odd(x uint64) uint64 {
	low := x &^ highs
	return x&highs |
		zeroByte(low&^(0x1F*ones)) | // below a space
		zeroByte(low^('"'*ones)) |
		zeroByte(low^('\\'*ones)) |
		zeroByte(low^(0x7F*ones))
}

// plain reports whether s is printable ASCII without quotes and backslashes: what
// JSON shows as it is, and what a text may have.
func plain[T ~string | ~[]byte](s T) bool {
	i := 0
	for ; i+8 <= len(s); i += 8 {
		x := uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
		if odd(x) != 0 {
			return false
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c >= 0x7F || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
