package view

import "testing"

// Whatever is read as a moment is one that is written back and read the same.
func FuzzParseAt(f *testing.F) {
	for _, text := range []string{"0", "17", "9007199254740991", "9007199254740992", "-1", "2026-07-07T14:00:00Z", "2026-07-07T14:00:00.123456789+02:00", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00", "x", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := ParseAt(text)
		if err != nil {
			if at != (At{}) {
				t.Fatalf("%q: refused with %v, and gave %+v", text, err, at)
			}
			return
		}
		if at.Seq > maxSeq || !at.Time.IsZero() && at.Seq != 0 {
			t.Fatalf("%q: %+v", text, at)
		}
		again, err := ParseAt(at.String())
		if err != nil || again != at {
			t.Fatalf("%q is %+v, written as %s and read as %+v (%v)", text, at, at, again, err)
		}
	})
}
