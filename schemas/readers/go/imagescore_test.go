package imagescore

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func vectors(t *testing.T, name string, into interface{}) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

type meaning struct {
	Score        float64    `json:"score"`
	CoverScore   *float64   `json:"cover_score"`
	BestPosition int        `json:"best_position"`
	ScoredPhotos int        `json:"scored_photos"`
	Partial      bool       `json:"partial"`
	Aspects      [6]float64 `json:"aspects"`
	EventVersion uint64     `json:"event_version"`
	ModelVersion uint32     `json:"model_version"`
	ScoredAtMs   int64      `json:"scored_at_ms"`
}

func TestRecordsHaveTheMeaningOfTheVectors(t *testing.T) {
	var found struct {
		Keys []struct {
			ListingID string `json:"listing_id"`
			Key       string `json:"key"`
		} `json:"keys"`
		Records []struct {
			Name   string   `json:"name"`
			Hex    string   `json:"hex"`
			Record *meaning `json:"record"`
		} `json:"records"`
	}
	vectors(t, "redis_record.json", &found)
	if len(found.Records) < 10 || len(found.Keys) < 3 {
		t.Fatal("too few vectors")
	}
	for _, key := range found.Keys {
		if Key(key.ListingID) != key.Key {
			t.Errorf("key of %s: %s", key.ListingID, Key(key.ListingID))
		}
	}
	for _, vector := range found.Records {
		data, err := hex.DecodeString(vector.Hex)
		if err != nil {
			t.Fatal(err)
		}
		record, err := Parse(data)
		if vector.Record == nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: not refused", vector.Name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", vector.Name, err)
			continue
		}
		got := meaning{record.Score, record.CoverScore, record.BestPosition, record.ScoredPhotos, record.Partial,
			record.Aspects, record.EventVersion, record.ModelVersion, record.ScoredAt.UnixMilli()}
		if !reflect.DeepEqual(got, *vector.Record) || math.IsNaN(got.Score) {
			t.Errorf("%s: got %+v, want %+v", vector.Name, got, *vector.Record)
		}
	}
}

func TestUsersHaveTheArmsOfTheVectors(t *testing.T) {
	var found struct {
		Experiments Experiments `json:"experiments"`
		Users       []struct {
			User string            `json:"user"`
			Arms map[string]string `json:"arms"`
		} `json:"users"`
	}
	vectors(t, "experiments.json", &found)
	if len(found.Users) < 50 {
		t.Fatal("too few vectors")
	}
	for _, user := range found.Users {
		if got := found.Experiments.Assign(user.User); !reflect.DeepEqual(got, user.Arms) {
			t.Errorf("%s: got %v, want %v", user.User, got, user.Arms)
		}
	}
}

type server struct {
	asked  bytes.Buffer
	answer *bytes.Buffer
}

func (s *server) Write(data []byte) (int, error) { return s.asked.Write(data) }
func (s *server) Read(data []byte) (int, error)  { return s.answer.Read(data) }

func TestAnswersOfRedisThatAreNoRecord(t *testing.T) {
	for answer, want := range map[string]error{"$-1\r\n": ErrNoScore, "$2\r\nab\r\n": ErrDamaged} {
		if _, err := Get(&server{answer: bytes.NewBufferString(answer)}, "m1"); !errors.Is(err, want) {
			t.Errorf("%q: %v", answer, err)
		}
	}
	for _, answer := range []string{"-NOAUTH Authentication required.\r\n", ":1\r\n", "$99\r\nab", ""} {
		if _, err := Get(&server{answer: bytes.NewBufferString(answer)}, "m1"); err == nil {
			t.Errorf("%q was taken for a record", answer)
		}
	}
}
