package event

import (
	"strings"
	"testing"
)

// Every byte at every place of a word is judged as the dumb loop does.
func TestPlain(t *testing.T) {
	for length := range 20 {
		for at := range length {
			for c := range 256 {
				b := []byte(strings.Repeat("x", length))
				b[at] = byte(c)
				want := c >= 0x20 && c < 0x7F && c != '"' && c != '\\'
				if plain(b) != want || plain(string(b)) != want {
					t.Fatalf("byte %#x at %d of %d: %v", c, at, length, !want)
				}
			}
		}
	}
	if !plain("") {
		t.Error("nothing is not plain")
	}
}
