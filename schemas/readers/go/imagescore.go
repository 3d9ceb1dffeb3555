// Package imagescore reads listings' scores from Redis, and says which arm of an experiment a user sees.
//
// It needs nothing but Go's standard library: copy this file. The bytes are described in schemas/redis_record.py, the
// rule of the experiments in schemas/experiment.py.
package imagescore

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

const (
	size         = 36
	maxPhotos    = 20
	coverMissing = 1
	partial      = 2
	buckets      = 10000
)

// ErrDamaged says that bytes are no record that can be read: treat the listing as one without a score.
var ErrDamaged = errors.New("not a record: it needs 36 bytes and format version 1 or later")

// ErrNoScore says that a listing has no score: not scored yet, or deleted. It is not a low score.
var ErrNoScore = errors.New("the listing has no score")

// Record is what search reads of a listing. Scores and aspects are 0..1.
type Record struct {
	Score        float64
	CoverScore   *float64 // nil: the cover photo has no score
	BestPosition int      // 0..19, of the best photo
	ScoredPhotos int      // 1..20
	Partial      bool     // some photos have no score
	Aspects      [6]float64
	EventVersion uint64
	ScoredAt     time.Time
	ModelVersion uint32
}

// Key returns the Redis key of a listing's record.
func Key(listingID string) string { return "image_score:{" + listingID + "}" }

// Parse reads the value of a listing's key, of this or a later format version.
func Parse(data []byte) (Record, error) {
	if len(data) < size || data[0] == 0 || data[2] >= maxPhotos || data[3] < 1 || data[3] > maxPhotos {
		return Record{}, ErrDamaged
	}
	record := Record{
		Score:        float64(binary.LittleEndian.Uint16(data[4:])) / 65535,
		BestPosition: int(data[2]),
		ScoredPhotos: int(data[3]),
		Partial:      data[1]&partial != 0,
		EventVersion: binary.LittleEndian.Uint64(data[16:]),
		ScoredAt:     time.UnixMilli(int64(binary.LittleEndian.Uint64(data[24:]))).UTC(),
		ModelVersion: binary.LittleEndian.Uint32(data[32:]),
	}
	if data[1]&coverMissing == 0 {
		cover := float64(binary.LittleEndian.Uint16(data[6:])) / 65535
		record.CoverScore = &cover
	}
	for i := range record.Aspects {
		record.Aspects[i] = float64(data[8+i]) / 255
	}
	return record, nil
}

// Get asks Redis over a connection of its own, one question at a time. Services have a client with a pool: give what it
// reads from Key to Parse.
func Get(connection io.ReadWriter, listingID string) (Record, error) {
	key := Key(listingID)
	if _, err := fmt.Fprintf(connection, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key); err != nil {
		return Record{}, err
	}
	reader := bufio.NewReader(connection)
	line, err := reader.ReadString('\n')
	if err != nil {
		return Record{}, err
	}
	line = strings.TrimSpace(line)
	if line == "$-1" || line == "_" {
		return Record{}, ErrNoScore
	}
	length, err := strconv.Atoi(strings.TrimPrefix(line, "$"))
	if err != nil || !strings.HasPrefix(line, "$") || length > 1<<20 {
		return Record{}, fmt.Errorf("redis: %s", line)
	}
	data := make([]byte, length+2)
	if _, err := io.ReadFull(reader, data); err != nil {
		return Record{}, err
	}
	return Parse(data[:length])
}

// Experiments is the file that `image-score experiment assign` reads; encoding/json fills it.
type Experiments struct {
	Layers  []Layer  `json:"layers"`
	Exclude []string `json:"exclude"`
}

// Layer holds experiments that exclude each other.
type Layer struct {
	Name        string       `json:"name"`
	Salt        string       `json:"salt"`
	Experiments []Experiment `json:"experiments"`
}

// Experiment owns the buckets First to Last of its layer.
type Experiment struct {
	Name    string            `json:"name"`
	Salt    string            `json:"salt"`
	First   uint64            `json:"first"`
	Last    *uint64           `json:"last"` // nil: 9999
	Ramp    *uint64           `json:"ramp"` // in 1/10000 of its users; nil: all
	Arms    []Arm             `json:"arms"`
	Exclude []string          `json:"exclude"`
	Force   map[string]string `json:"force"`
}

// Arm is one way of an experiment; nil Weight is 1.
type Arm struct {
	Name   string  `json:"name"`
	Weight *uint64 `json:"weight"`
}

// Assign returns the user's arm in each experiment that the user is in.
func (e Experiments) Assign(user string) map[string]string {
	found := map[string]string{}
	for _, layer := range e.Layers {
		if name, arm, ok := layer.forced(user); ok {
			found[name] = arm
		} else if !contains(e.Exclude, user) {
			bucket := hash(layer.Salt+"/"+user) % buckets
			for _, experiment := range layer.Experiments {
				if arm, ok := experiment.armOf(user, bucket); ok {
					found[experiment.Name] = arm
				}
			}
		}
	}
	return found
}

func (l Layer) forced(user string) (string, string, bool) {
	for _, experiment := range l.Experiments {
		if arm, ok := experiment.Force[user]; ok {
			return experiment.Name, arm, true
		}
	}
	return "", "", false
}

func (e Experiment) armOf(user string, bucket uint64) (string, bool) {
	if contains(e.Exclude, user) || bucket < e.First || bucket > or(e.Last, buckets-1) {
		return "", false
	}
	if hash(e.Salt+"/ramp/"+user)%buckets >= or(e.Ramp, buckets) {
		return "", false
	}
	sum := uint64(0)
	for _, arm := range e.Arms {
		sum += or(arm.Weight, 1)
	}
	if sum == 0 {
		return "", false
	}
	left := hash(e.Salt+"/arm/"+user) % sum
	for _, arm := range e.Arms {
		if left < or(arm.Weight, 1) {
			return arm.Name, true
		}
		left -= or(arm.Weight, 1)
	}
	return "", false
}

// hash returns the first seven bytes of the text's SHA-256.
func hash(text string) uint64 {
	sum := sha256.Sum256([]byte(text))
	return binary.BigEndian.Uint64(sum[:8]) >> 8
}

func or(value *uint64, otherwise uint64) uint64 {
	if value == nil {
		return otherwise
	}
	return *value
}

func contains(all []string, one string) bool {
	for _, candidate := range all {
		if candidate == one {
			return true
		}
	}
	return false
}
