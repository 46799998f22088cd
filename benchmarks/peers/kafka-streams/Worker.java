import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.util.Arrays;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorSupplier;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/** The job of `bench peers` in Kafka Streams, exactly once: a processor with a store of each plane's delays. */
public class Worker {
    static final ObjectMapper JSON = new ObjectMapper();

    record Flight(String id, String tailnum, String carrier, String origin, String dest, int hour, int minute,
                  double distance, @JsonProperty("dep_delay") double delay, Double seats,
                  @JsonProperty("plane_year") Double year) {}

    record Decision(@JsonProperty("event_id") String id, String outcome, double score) {}

    record Rates(@JsonProperty("late_share") double lateShare, @JsonProperty("usual_delay") double usualDelay,
                 Map<String, Double> carrier, Map<String, Double> dest, Map<String, Double> origin,
                 @JsonProperty("route_air_min") Map<String, Double> airMin) {}

    public static void main(String[] words) throws Exception {
        String servers = words[0], group = words[1], source = words[2], target = words[3], folder = words[6];
        Rates rates = JSON.readValue(new File(words[5]), Rates.class);
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        options.setIntraOpNumThreads(1);
        options.setInterOpNumThreads(1);
        OrtSession session = OrtEnvironment.getEnvironment().createSession(words[4], options);

        Properties told = new Properties();
        told.put(StreamsConfig.APPLICATION_ID_CONFIG, group);
        told.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
        told.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        told.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        told.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        told.put(StreamsConfig.STATE_DIR_CONFIG, folder);

        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(source, Consumed.with(Serdes.String(), json(Flight.class)))
            .processValues(new FixedKeyProcessorSupplier<String, Flight, Decision>() {
                @Override
                public FixedKeyProcessor<String, Flight, Decision> get() {
                    return new Decider(rates, session);
                }

                @Override
                public Set<StoreBuilder<?>> stores() {
                    return Set.of(Stores.keyValueStoreBuilder(
                        Stores.persistentKeyValueStore("delays"), Serdes.String(), doubles()).withCachingEnabled());
                }
            })
            .to(target, Produced.with(Serdes.String(), json(Decision.class)));
        KafkaStreams streams = new KafkaStreams(builder.build(), told);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }

    static class Decider implements FixedKeyProcessor<String, Flight, Decision> {
        private final Rates rates;
        private final OrtSession session;
        private FixedKeyProcessorContext<String, Decision> context;
        private KeyValueStore<String, double[]> delays;

        Decider(Rates rates, OrtSession session) {
            this.rates = rates;
            this.session = session;
        }

        @Override
        public void init(FixedKeyProcessorContext<String, Decision> context) {
            this.context = context;
            delays = context.getStateStore("delays");
        }

        @Override
        public void process(FixedKeyRecord<String, Flight> record) {
            Flight flight = record.value();
            double score = score(features(flight, smoothed(flight)));
            String outcome = score >= 0.5 ? "late" : "on-time";
            context.forward(record.withValue(new Decision(flight.id(), outcome, score)));
        }

        /** Mean of the plane's last four delays, without this one; remembers this one. */
        private double smoothed(Flight flight) {
            double[] window = delays.get(flight.tailnum());
            int known = window == null ? 0 : window.length;
            int first = known == 4 ? 1 : 0;
            double[] next = known == 0 ? new double[1] : Arrays.copyOfRange(window, first, known + 1);
            next[next.length - 1] = flight.delay();
            delays.put(flight.tailnum(), next);
            return known == 0 ? rates.usualDelay() : Arrays.stream(window).sum() / known;
        }

        private float[] features(Flight flight, double usual) {
            double delay = flight.delay();
            double clipped = Math.min(Math.max(delay, -20), 120);
            return new float[] {
                (float) (flight.hour() + flight.minute() / 60.0), (float) flight.distance(), number(flight.seats()),
                number(flight.year()), share(rates.carrier(), flight.carrier()), share(rates.dest(), flight.dest()),
                share(rates.origin(), flight.origin()), (float) clipped,
                (float) Math.log1p(Math.min(Math.max(delay, 0), 1440)), delay > 0 ? 1 : 0, delay > 15 ? 1 : 0,
                (float) (0.9 * clipped + 0.1 * Math.min(Math.max(usual, -20), 120)),
            };
        }

        private float share(Map<String, Double> shares, String name) {
            return shares.getOrDefault(name, rates.lateShare()).floatValue();
        }

        private static float number(Double value) {
            return value == null ? Float.NaN : value.floatValue();
        }

        private double score(float[] row) {
            try (OnnxTensor features = OnnxTensor.createTensor(
                     OrtEnvironment.getEnvironment(), FloatBuffer.wrap(row), new long[] {1, row.length});
                 OrtSession.Result found = session.run(Map.of("features", features), Set.of("probabilities"))) {
                return ((float[][]) found.get(0).getValue())[0][1];
            } catch (OrtException error) {
                throw new IllegalStateException(error);
            }
        }
    }

    static <T> Serde<T> json(Class<T> type) {
        Serializer<T> out = (topic, value) -> {
            try {
                return JSON.writeValueAsBytes(value);
            } catch (JsonProcessingException error) {
                throw new IllegalStateException(error);
            }
        };
        Deserializer<T> in = (topic, bytes) -> {
            try {
                return JSON.readValue(bytes, type);
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
        };
        return Serdes.serdeFrom(out, in);
    }

    static Serde<double[]> doubles() {
        Serializer<double[]> out = (topic, values) -> {
            if (values == null) {
                return null;
            }
            ByteBuffer bytes = ByteBuffer.allocate(8 * values.length);
            bytes.asDoubleBuffer().put(values);
            return bytes.array();
        };
        Deserializer<double[]> in = (topic, bytes) -> {
            if (bytes == null) {
                return null;
            }
            double[] values = new double[bytes.length / 8];
            ByteBuffer.wrap(bytes).asDoubleBuffer().get(values);
            return values;
        };
        return Serdes.serdeFrom(out, in);
    }
}
