package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFramesRoundTrip(t *testing.T) {
	var b bytes.Buffer
	messages := [][]byte{nil, []byte("a"), bytes.Repeat([]byte{7}, firstBytes), bytes.Repeat([]byte{8}, 5*firstBytes+3)}
	for _, m := range messages {
		if err := WriteFrame(&b, m, MaxBatch); err != nil {
			t.Fatal(err)
		}
	}
	r := iotest.HalfReader(&b) // arrives in pieces
	for i, want := range messages {
		got, err := ReadFrame(r, MaxBatch)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("message %d: %d bytes, %v", i, len(got), err)
		}
	}
	if _, err := ReadFrame(r, MaxBatch); err != io.EOF {
		t.Fatalf("at the end: %v, want EOF", err)
	}
}

func TestCapIsTheLargestThatPasses(t *testing.T) {
	const limit = 100
	var b bytes.Buffer
	if err := WriteFrame(&b, make([]byte, limit), limit); err != nil {
		t.Fatal(err)
	}
	sent := b.Len()
	if err := WriteFrame(&b, make([]byte, limit+1), limit); !errors.Is(err, ErrTooLarge) || b.Len() != sent {
		t.Fatalf("one byte over: %v, %d bytes written", err, b.Len()-sent)
	}
	if _, err := ReadFrame(bytes.NewReader(b.Bytes()), limit-1); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("read with a lower cap: %v", err)
	}
	if _, err := ReadFrame(&b, limit); err != nil {
		t.Fatal(err)
	}
}

func TestAnnouncedLengthsAreNotBelieved(t *testing.T) {
	for _, n := range []uint32{MaxBatch + 1, 1 << 31, 1<<32 - 1} {
		header := binary.BigEndian.AppendUint32(nil, n)
		body := &counter{r: bytes.NewReader(make([]byte, 1000))}
		if _, err := ReadFrame(io.MultiReader(bytes.NewReader(header), body), MaxBatch); !errors.Is(err, ErrTooLarge) || body.n != 0 {
			t.Fatalf("%d: %v, %d bytes of it read", n, err, body.n)
		}
	}
	// Within the cap, but nothing follows: no more than the first buffer is taken.
	liar := append(binary.BigEndian.AppendUint32(nil, MaxBatch), 'x')
	cost := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ReadFrame(bytes.NewReader(liar), MaxBatch); !errors.Is(err, io.ErrUnexpectedEOF) {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if cost > 2*firstBytes {
		t.Fatalf("a lie costs %d bytes", cost)
	}
}

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func TestEndsAreToldApart(t *testing.T) {
	whole := []byte{0, 0, 0, 3, 'a', 'b', 'c'}
	for cut := range whole {
		_, err := ReadFrame(bytes.NewReader(whole[:cut]), 10)
		want := io.ErrUnexpectedEOF
		if cut == 0 {
			want = io.EOF
		}
		if err != want {
			t.Errorf("cut after %d bytes: %v, want %v", cut, err, want)
		}
	}
	broken := io.MultiReader(bytes.NewReader(whole[:5]), iotest.ErrReader(errors.New("cable")))
	if _, err := ReadFrame(broken, 10); err == nil || err.Error() != "cable" {
		t.Fatalf("got %v", err)
	}
}

func TestFrameIsOneWrite(t *testing.T) {
	w := new(writes)
	if err := WriteJSON(w, map[string]int{"a": 1}, MaxControl); err != nil || w.n != 1 {
		t.Fatalf("%d writes, %v", w.n, err)
	}
}

type writes struct{ n int }

func (w *writes) Write(p []byte) (int, error) {
	w.n++
	return len(p), nil
}

func TestJSON(t *testing.T) {
	type message struct {
		Text string `json:"text"`
	}
	var b bytes.Buffer
	if err := WriteJSON(&b, message{"goose"}, MaxControl); err != nil {
		t.Fatal(err)
	}
	var got message
	if err := ReadJSON(&b, &got, MaxControl); err != nil || got.Text != "goose" {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := WriteJSON(&b, message{strings.Repeat("x", 100)}, 50); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	if err := WriteJSON(&b, func() {}, 50); err == nil {
		t.Fatal("a function was encoded")
	}
	for _, bad := range []string{"", "{", `{"text":1}`, `{} {}`, "\xff"} {
		b.Reset()
		if err := WriteFrame(&b, []byte(bad), MaxControl); err != nil {
			t.Fatal(err)
		}
		if err := ReadJSON(&b, &got, MaxControl); err == nil {
			t.Errorf("%q was decoded", bad)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, '{', '}'}, 64)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, 1<<20)
	f.Add([]byte{0, 0, 0, 0}, 0)
	f.Add([]byte{0, 0, 0, 1, 'x'}, -1)
	f.Fuzz(func(t *testing.T, data []byte, limit int) {
		got, err := ReadFrame(bytes.NewReader(data), limit)
		if err != nil {
			return
		}
		if len(got) > limit || !bytes.Equal(got, data[headerBytes:headerBytes+len(got)]) {
			t.Fatalf("read %d bytes with cap %d", len(got), limit)
		}
		var again bytes.Buffer
		if err := WriteFrame(&again, got, limit); err != nil || !bytes.Equal(again.Bytes(), data[:again.Len()]) {
			t.Fatalf("does not round trip: %v", err)
		}
	})
}
