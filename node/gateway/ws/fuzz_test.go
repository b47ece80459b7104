package ws

import "testing"

// What is accepted of a watcher is within the bounds, whatever was sent.
func FuzzDecodeWatcher(f *testing.F) {
	for _, text := range []string{
		`{"type":"watch"}`, `{"type":"watch","since":7,"filter":{"type":"robot.","from":"2026-01-01T00:00:00Z"}}`,
		`{"type":"watch","cursor":{"history":"h","seq":3,"hash":"ff"}}`, `{"type":"watch","since":-1}`, `{"type":"auth","token":"t"}`, `[]`, `{`, `null`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := decodeWatcher(text, "watch")
		if err != nil {
			return
		}
		if m.Type != "watch" || m.Cursor != nil && m.Since != nil || len(m.Filter.Stream)+len(m.Filter.Type)+len(m.Filter.Actor) > 3*maxFilter {
			t.Fatalf("%q is accepted as %+v", text, m)
		}
		if p := m.place(); p != nil && p.Seq > maxSeq {
			t.Fatalf("%q begins at %+v", text, p)
		}
		m.filter()
	})
}
