package view

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"time"

	"skein/mesh/ident"
)

const domainLogin = "login/1"

// SignLogin makes the login of person, signed with her key, for the issuer and
// at the time that GET /api/v1/login gave.
func SignLogin(key ident.Key, info LoginInfo, person string) Login {
	at := info.Now.UTC().Truncate(time.Millisecond)
	l := Login{Person: person, Issuer: info.Issuer, At: &at, Nonce: rand.Text()}
	l.Signature = key.Sign(domainLogin, l.signedBytes(info.FleetID))
	return l
}

// SignedBy reports whether pub signed this login for fleet. Time, nonce and
// issuer are the issuer's to check.
func (l Login) SignedBy(pub ed25519.PublicKey, fleet ident.FleetID) bool {
	return l.At != nil && ident.Verify(pub, domainLogin, l.signedBytes(fleet), l.Signature)
}

// signedBytes is the canonical form: fixed order, length-prefixed.
func (l Login) signedBytes(fleet ident.FleetID) []byte {
	var b []byte
	for _, s := range []string{string(fleet), string(l.Issuer), l.Person, l.Nonce} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return binary.BigEndian.AppendUint64(b, uint64(l.At.UnixMilli()))
}
