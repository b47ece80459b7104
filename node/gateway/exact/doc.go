// Package exact decodes what people and programs send, and refuses what
// encoding/json would take for something else than was sent: a name that is there
// twice (it takes the last), a name in another case (it takes it for the field),
// half a surrogate pair or bytes that are no UTF-8 (it puts U+FFFD in place).
//
// Fields that the type does not have are left alone; whether they are an error
// is for who asks. So are the names in free-form objects, where "A" and "a" are
// two keys.
//
// Imported by the parts of the gateway that read messages.
package exact
