package auth

import (
	"crypto/ed25519"
	"crypto/sha256"
	"sync"
)

// maxVerified bounds the tokens whose signature need not be checked again.
const maxVerified = 1024

// seen is a token that was found to be signed by a voter.
type seen struct {
	// who is what the token says; what it is worth now is asked every time.
	who Principal
	// key is the issuer's that its signature was checked with.
	key ed25519.PublicKey
}

// verified remembers good tokens, so that a person who proposes a thousand
// events does not cost a thousand signature checks. It holds hashes, so that a
// memory dump gives no token away, and only tokens that were good when they were
// put in, so that strangers cannot fill it.
type verified struct {
	mu     sync.RWMutex
	tokens map[[sha256.Size]byte]seen
}

func (v *verified) get(token string) (seen, bool) {
	hash := sha256.Sum256([]byte(token))
	v.mu.RLock()
	defer v.mu.RUnlock()
	s, ok := v.tokens[hash]
	return s, ok
}

// put remembers a token. When there is no room any other is forgotten: its next
// use costs a check, nothing else.
func (v *verified) put(token string, s seen) {
	hash := sha256.Sum256([]byte(token))
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.tokens == nil {
		v.tokens = map[[sha256.Size]byte]seen{}
	}
	if len(v.tokens) >= maxVerified {
		for other := range v.tokens {
			delete(v.tokens, other)
			break
		}
	}
	v.tokens[hash] = s
}

// again is what a token that was verified before is worth now: nothing is parsed
// or checked again but its end, its issuer and its person. Not ok means that it
// has to be verified.
func (s *Service) again(token string) (p Principal, ok bool, err error) {
	known, ok := s.verified.get(token)
	if !ok {
		return Principal{}, false, nil
	}
	// All that Verify finds beside the signature may change; where it has, Verify
	// says so in its own words.
	key, voter := s.directory.KeyOf(known.who.Issuer)
	if !voter || !key.Equal(known.key) || !s.now().Before(known.who.Expires.Add(leeway)) {
		return Principal{}, false, nil
	}
	p, err = s.current(known.who)
	return p, true, err
}
