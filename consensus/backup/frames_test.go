package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"skein/consensus/backup/backuptest"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

// Who changes a backup can make every checksum right, and not the signature.
func TestForged(t *testing.T) {
	l := backuptest.New(t, t.TempDir(), replica.Options{})
	m := New(Config{Source: l.Replica, Key: fleettest.Key(0), Chain: func() ident.Chain { return backuptest.Chain(0) }, Build: "v1"})
	var b bytes.Buffer
	if _, err := m.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	forge := func(sign func(sum []byte, old trailer) trailer) error {
		r, err := openReader(bytes.NewReader(b.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		w, err := newWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		for {
			f, err := r.next()
			if err != nil {
				t.Fatal(err)
			}
			if f.kind != kindTrailer {
				if err := w.put(f.kind, bytes.Replace(f.content, []byte(`"build":"v1"`), []byte(`"build":"v2"`), 1)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			var end trailer
			if err := json.Unmarshal(f.content, &end); err != nil {
				t.Fatal(err)
			}
			if err := putJSON(w, kindTrailer, sign(w.sum.Sum(nil), end)); err != nil {
				t.Fatal(err)
			}
			_, err = Read(&out, Visitor{})
			return err
		}
	}
	if err := forge(func(_ []byte, old trailer) trailer { return old }); !errors.Is(err, ErrDamaged) {
		t.Errorf("the old sum: %v", err)
	}
	if err := forge(func(sum []byte, old trailer) trailer { old.Sum = sum; return old }); !errors.Is(err, ErrUntrusted) {
		t.Errorf("the old signature: %v", err)
	}
	if err := forge(func(sum []byte, old trailer) trailer {
		return trailer{old.Records, sum, fleettest.Key(3).Sign(domain, sum)}
	}); !errors.Is(err, ErrUntrusted) {
		t.Errorf("another's signature: %v", err)
	}
	if err := forge(func(sum []byte, old trailer) trailer {
		return trailer{old.Records, sum, fleettest.Key(0).Sign("log-seal/1", sum)}
	}); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a signature for another purpose: %v", err)
	}
	if err := forge(func(sum []byte, old trailer) trailer {
		return trailer{old.Records, sum, fleettest.Key(0).Sign(domain, sum)}
	}); err != nil {
		t.Errorf("the test does not make what a maker makes: %v", err)
	}
}

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
