package member

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"skein/mesh/ident"
)

func someone(t testing.TB, addrs ...string) (ident.Key, statement) {
	t.Helper()
	key, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	st := statement{boot: 7, n: 3, endpoint: ident.Endpoint{
		ID: key.ID(), PublicKey: key.Public(), LinkPort: 1, GossipPort: 2, HTTPPort: 3,
	}}
	for _, a := range addrs {
		st.endpoint.Addrs = append(st.endpoint.Addrs, netip.MustParseAddr(a))
	}
	return key, st
}

func TestStatementSurvivesTheWire(t *testing.T) {
	for _, addrs := range [][]string{{"10.0.0.1"}, {"fd00::1", "10.0.0.1"}, {"10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::4"}} {
		key, st := someone(t, addrs...)
		for _, st.leaving = range []bool{false, true} {
			b := st.encode(key)
			if len(b) > 512 {
				t.Fatalf("metadata has %d bytes; memberlist takes 512", len(b))
			}
			got, err := decodeStatement(b)
			if err != nil || !got.endpoint.Equal(st.endpoint) || got.boot != st.boot || got.n != st.n || got.leaving != st.leaving ||
				!slices.Equal(got.endpoint.PublicKey, st.endpoint.PublicKey) {
				t.Fatalf("read %+v, %v; want %+v", got, err, st)
			}
		}
	}
}

func TestStatementKeepsTheBestAddresses(t *testing.T) {
	key, st := someone(t, "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5")
	got, err := decodeStatement(st.encode(key))
	if err != nil || !slices.Equal(got.endpoint.Addrs, st.endpoint.Addrs[:MaxMetaAddrs]) {
		t.Fatalf("read %v, %v", got.endpoint.Addrs, err)
	}
}

func TestAnyChangedBitIsNoticed(t *testing.T) {
	key, st := someone(t, "10.0.0.1", "fd00::1")
	whole := st.encode(key)
	for i := range whole {
		for bit := range 8 {
			b := slices.Clone(whole)
			b[i] ^= 1 << bit
			if _, err := decodeStatement(b); !errors.Is(err, errBadMeta) {
				t.Fatalf("byte %d bit %d: %v, want errBadMeta", i, bit, err)
			}
		}
	}
	for n := range whole {
		if _, err := decodeStatement(whole[:n]); !errors.Is(err, errBadMeta) {
			t.Fatalf("first %d bytes: %v, want errBadMeta", n, err)
		}
	}
}

func TestStatementsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, edit := range map[string]func(*statement){
		"no address":      func(st *statement) { st.endpoint.Addrs = nil },
		"unspecified":     func(st *statement) { st.endpoint.Addrs = []netip.Addr{netip.IPv4Unspecified()} },
		"multicast":       func(st *statement) { st.endpoint.Addrs = []netip.Addr{netip.MustParseAddr("224.0.0.1")} },
		"no gossip port":  func(st *statement) { st.endpoint.GossipPort = 0 },
		"counter of zero": func(st *statement) { st.n = 0 },
	} {
		key, st := someone(t, "10.0.0.1")
		edit(&st)
		if _, err := decodeStatement(st.encode(key)); !errors.Is(err, errBadMeta) {
			t.Errorf("%s: %v, want errBadMeta", name, err)
		}
	}
}

// FuzzStatement: what is accepted says one thing only and was signed by its key.
func FuzzStatement(f *testing.F) {
	key, st := someone(f, "10.0.0.1", "fd00::1")
	f.Add(st.encode(key))
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeStatement(b)
		if err != nil {
			return
		}
		if e := got.endpoint; ident.IDOf(e.PublicKey) != e.ID || len(e.Addrs) == 0 || len(e.Addrs) > MaxMetaAddrs {
			t.Fatalf("took %+v", got)
		}
	})
}

// FuzzAddrs reaches the part of the decoder that a wrong signature hides.
func FuzzAddrs(f *testing.F) {
	f.Add([]byte{1, 4, 10, 0, 0, 1})
	f.Add([]byte{2, 4, 10, 0, 0, 1, 16})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return // the caller has checked that there is a count
		}
		addrs, err := decodeAddrs(b)
		if err != nil {
			return
		}
		if len(addrs) == 0 || len(addrs) > MaxMetaAddrs {
			t.Fatalf("took %v", addrs)
		}
	})
}
