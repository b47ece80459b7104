package discover

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"skein/mesh/ident"
)

func mustParse(t testing.TB, b []byte, err error) message {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	msg, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func TestAnnouncementSurvivesTheWire(t *testing.T) {
	e := someone(t, 7781)
	e.Addrs = []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("192.168.1.7")}
	b, err := encodeAnnouncement(e, "tag", e.Addrs, false, nil)
	msg := mustParse(t, b, err)
	if msg.query || len(msg.announced) != 1 {
		t.Fatalf("read %+v", msg)
	}
	a := msg.announced[0]
	if a.gone || a.tag != "tag" || !a.node.Equal(e) || !slices.Equal(a.node.PublicKey, e.PublicKey) {
		t.Fatalf("announced %+v, want %+v", a, e)
	}
	if len(b) > 400 {
		t.Errorf("an announcement has %d bytes", len(b))
	}
}

func TestAQueryAnnouncesNobody(t *testing.T) {
	e := someone(t, 7781)
	b, err := encodeAnnouncement(e, "tag", e.Addrs, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	b[2] &^= 0x80 // RFC 1035 section 4.1.1: QR
	if msg := mustParse(t, b, nil); !msg.query || len(msg.announced) != 0 || len(msg.known) != 1 {
		t.Fatalf("read %+v", msg)
	}
}

func TestGoodbyeNamesTheNodeOnly(t *testing.T) {
	e := someone(t, 7781)
	b, err := encodeAnnouncement(e, "tag", e.Addrs, true, nil)
	msg := mustParse(t, b, err)
	if len(msg.announced) != 1 || !msg.announced[0].gone || msg.announced[0].node.ID != e.ID {
		t.Fatalf("read %+v", msg)
	}
}

func TestQueryListsKnownNodesAndFitsInAPacket(t *testing.T) {
	var ids []ident.NodeID
	for range maxKnown + 5 {
		ids = append(ids, someone(t, 1).ID)
	}
	b, err := encodeQuery(ids)
	msg := mustParse(t, b, err)
	slices.Sort(msg.known)
	want := slices.Sorted(slices.Values(ids[:maxKnown]))
	if !msg.query || !slices.Equal(msg.known, want) || len(msg.questions) != 1 || !asksService(msg.questions[0]) {
		t.Fatalf("read %+v", msg)
	}
	if len(b) > 1400 {
		t.Errorf("a query has %d bytes, more than an Ethernet frame takes", len(b))
	}
}

func TestOnlyWhatHoldsTogetherIsAnnounced(t *testing.T) {
	e, other := someone(t, 7781), someone(t, 7781)
	swap := func(edit func(*ident.Endpoint)) ident.Endpoint { c := e; edit(&c); return c }
	for name, bad := range map[string]ident.Endpoint{
		"key of another": swap(func(c *ident.Endpoint) { c.PublicKey = other.PublicKey }),
		"no key":         swap(func(c *ident.Endpoint) { c.PublicKey = nil }),
		"no port":        swap(func(c *ident.Endpoint) { c.LinkPort = 0 }),
		"no address":     swap(func(c *ident.Endpoint) { c.Addrs = nil }),
		"no node id":     swap(func(c *ident.Endpoint) { c.ID = "printer" }),
	} {
		t.Run(name, func(t *testing.T) {
			b, err := encodeAnnouncement(bad, "tag", bad.Addrs, false, nil)
			if msg := mustParse(t, b, err); len(msg.announced) != 0 {
				t.Fatalf("took %+v", msg.announced)
			}
		})
	}
}

func TestOtherServicesAreSkipped(t *testing.T) {
	name := dnsmessage.MustNewName("_ipp._tcp.local.")
	m := dnsmessage.Message{Header: dnsmessage.Header{Response: true}}
	for range 50 {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 10},
			Body:   &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName("printer._ipp._tcp.local.")},
		})
	}
	b, err := m.Pack()
	if msg := mustParse(t, b, err); len(msg.announced) != 0 || len(msg.known) != 0 {
		t.Fatalf("read %+v", msg)
	}
}

func TestWantedFindsWhatConcernsThisNode(t *testing.T) {
	self := someone(t, 1).ID
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		want interest
	}{
		{serviceName, dnsmessage.TypePTR, sharedRecord},
		{serviceName, dnsmessage.TypeALL, sharedRecord},
		{serviceName, dnsmessage.TypeA, nothing},
		{string(self) + "." + serviceName, dnsmessage.TypeSRV, ownRecord},
		{string(self) + "." + serviceName, dnsmessage.TypeTXT, ownRecord},
		{string(self) + ".local.", dnsmessage.TypeA, ownRecord},
		{string(self) + ".local.", dnsmessage.TypeAAAA, nothing},
		{"other.local.", dnsmessage.TypeA, nothing},
		{typesName, dnsmessage.TypePTR, serviceTypes},
	} {
		if got, _ := wanted(message{query: true, questions: []question{{c.name, c.kind}}}, self); got != c.want {
			t.Errorf("%s %s: %d, want %d", c.kind, c.name, got, c.want)
		}
	}
	known := message{query: true, questions: []question{{serviceName, dnsmessage.TypePTR}}, known: []ident.NodeID{self}}
	if got, _ := wanted(known, self); got != nothing {
		t.Error("answers although the asker knows this node")
	}
}

func TestFleetTagIsPublicAndShort(t *testing.T) {
	a, b := fleetTag("fleet-a"), fleetTag("fleet-b")
	if a == b || len(a) != 12 || strings.Contains(a, "fleet") {
		t.Fatalf("tags %q and %q", a, b)
	}
}

// FuzzParse: whatever the LAN sends, parsing ends, and what comes out holds together.
func FuzzParse(f *testing.F) {
	e := someone(f, 7781)
	for _, goodbye := range []bool{false, true} {
		b, err := encodeAnnouncement(e, "tag", e.Addrs, goodbye, &reply{7, question{serviceName, dnsmessage.TypePTR}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append([]byte(nil), b...))
		b[2] &^= 0x80
		f.Add(append([]byte(nil), b...))
	}
	b, err := encodeQuery([]ident.NodeID{e.ID})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, packet []byte) {
		msg, err := parse(packet)
		if err != nil {
			return
		}
		for _, a := range msg.announced {
			if msg.query || !a.gone && !a.node.Valid() {
				t.Fatalf("took %+v", a)
			}
		}
		if len(msg.known) > maxRecords || len(msg.announced) > maxRecords || len(msg.questions) > maxRecords {
			t.Fatal("more than the bound")
		}
		wanted(msg, e.ID)
	})
}
