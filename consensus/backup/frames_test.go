package backup

import (
	"bytes"
	"encoding/json"
	"testing"
)

// FuzzFrames gives the reader parts whose checksums are right and whose content
// is anything, in an order that the fuzzer chooses.
func FuzzFrames(f *testing.F) {
	head, err := json.Marshal(Header{Format: formatName, Level: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(head, []byte("\x01{}"), byte(kindState), []byte(`{"records":0,"sum":"","signature":""}`))
	f.Add([]byte(`{"format":"skein-backup/1","level":99}`), []byte{}, byte(kindRecord), []byte(`{}`))
	f.Add([]byte(`null`), []byte{1}, byte('x'), []byte(`[]`))
	f.Fuzz(func(t *testing.T, head, middle []byte, kind byte, end []byte) {
		b := append([]byte(magic), version)
		b = appendFrame(b, kindHeader, head)
		b = appendFrame(b, kind, middle)
		b = appendFrame(b, kindTrailer, end)
		if s, err := Read(bytes.NewReader(b), Visitor{}); err == nil {
			t.Errorf("nobody signed that: %+v", s)
		}
	})
}
