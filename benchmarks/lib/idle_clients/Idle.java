import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** Java's own client, as __init__.py describes: one client, and so one connection, for each line. */
class Idle {
    static final ExecutorService SHARED = Executors.newCachedThreadPool(Idle::daemon);

    public static void main(String[] arguments) throws Exception {
        byte[] picture = Files.readAllBytes(Path.of(arguments[1]));
        var lines = new String(System.in.readAllBytes()).lines().toList();
        var threads = lines.stream().map(line -> new Thread(() -> follow(line, arguments[0], picture))).toList();
        threads.forEach(Thread::start);
        for (Thread thread : threads) {
            thread.join();
        }
        System.out.flush();
        System.exit(0);
    }

    static void follow(String line, String url, byte[] picture) {
        var client = HttpClient.newBuilder().executor(SHARED).build();
        for (String step : line.split(" ")) {
            String[] parts = step.split(":", 2);
            String outcome;
            try {
                Thread.sleep(Math.round(Double.parseDouble(parts[0]) * 1000));
                var request = HttpRequest.newBuilder(URI.create(url + "?" + parts[1]))
                    .header("Content-Type", "image/jpeg").POST(BodyPublishers.ofByteArray(picture)).build();
                outcome = String.valueOf(client.send(request, BodyHandlers.ofByteArray()).statusCode());
            } catch (Exception error) {
                outcome = error.toString();
            }
            System.out.println(parts[1] + "\t" + outcome);
        }
    }

    static Thread daemon(Runnable work) {
        var thread = new Thread(work);
        thread.setDaemon(true);
        return thread;
    }
}
