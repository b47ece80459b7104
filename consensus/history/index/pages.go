package index

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// An index is read here and there, so it is kept in pages that can be checked
// one by one: 4,092 bytes of content and their CRC-32C. The last one is filled up
// with zeros.
const (
	pageSize    = 4096
	pageContent = pageSize - 4
)

// appendPages appends content to b, cut into pages.
func appendPages(b, content []byte) []byte {
	for len(content) > 0 {
		at := len(b)
		n := min(len(content), pageContent)
		b = append(b, content[:n]...)
		b = append(b, make([]byte, pageContent-n)...)
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
		content = content[n:]
	}
	return b
}

// pages reads the content of a paged file. It keeps every page that it has read,
// in room that is used again for the next file.
type pages struct {
	file io.ReaderAt
	// size is how much content there is at most.
	size int64
	kept map[int64][]byte
	room []byte
}

// keptRoom is the most room for pages that is kept for the next file.
const keptRoom = 1 << 20

// open turns to another file. What bytes gave before is not valid any more.
func (p *pages) open(file io.ReaderAt, fileBytes int64) {
	p.file, p.size = file, fileBytes/pageSize*pageContent
	if p.kept == nil {
		p.kept = map[int64][]byte{}
	}
	clear(p.kept)
	if p.room = p.room[:0]; cap(p.room) > keptRoom {
		p.room = nil
	}
}

// more gives n bytes of room.
func (p *pages) more(n int) []byte {
	if n > cap(p.room)-len(p.room) { // who has bytes of the old room keeps it
		p.room = make([]byte, 0, max(n, 2*cap(p.room), 16*pageSize))
	}
	at := len(p.room)
	p.room = p.room[:at+n]
	return p.room[at : at+n : at+n]
}

// bytes gives n bytes of the content from off on. They must not be changed.
func (p *pages) bytes(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > p.size || n > p.size-off {
		return nil, fmt.Errorf("%w: it has %d bytes, wanted are %d from %d on", errUnusable, p.size, n, off)
	}
	if n == 0 {
		return nil, nil
	}
	first, last := off/pageContent, (off+n-1)/pageContent
	if err := p.load(first, last); err != nil {
		return nil, err
	}
	if at := off % pageContent; first == last {
		return p.kept[first][at : at+n], nil
	}
	b := p.more(int(n))[:0]
	for page := first; page <= last; page++ {
		from, to := max(off-page*pageContent, 0), min(off+n-page*pageContent, pageContent)
		b = append(b, p.kept[page][from:to]...)
	}
	return b, nil
}

// load reads the pages from first to last that are not kept yet, neighbours at once.
func (p *pages) load(first, last int64) error {
	for page := first; page <= last; page++ {
		if p.kept[page] != nil {
			continue
		}
		end := page
		for end < last && p.kept[end+1] == nil {
			end++
		}
		raw := p.more(int(end-page+1) * pageSize)
		if n, err := p.file.ReadAt(raw, page*pageSize); n < len(raw) {
			return fmt.Errorf("%w: read page %d: %w", errUnusable, page, err)
		}
		for ; page <= end; page++ {
			one := raw[:pageSize:pageSize]
			raw = raw[pageSize:]
			if crc32.Checksum(one[:pageContent], castagnoli) != binary.BigEndian.Uint32(one[pageContent:]) {
				return fmt.Errorf("%w: the checksum of page %d is wrong", errUnusable, page)
			}
			p.kept[page] = one[:pageContent]
		}
	}
	return nil
}
