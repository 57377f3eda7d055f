// The similarity of two face crops, with .NET 8 or newer and no package.
using System.Net;
using System.Net.Http.Json;

var client = new HttpClient { BaseAddress = new Uri("http://localhost:5555"), Timeout = TimeSpan.FromSeconds(30) };

var (one, recipe) = await Embed(args[0]);
var (other, otherRecipe) = await Embed(args[1]);
if (recipe != otherRecipe) throw new Exception("Made in different ways: do not compare.");
Console.WriteLine(FormattableString.Invariant($"similarity {one.Zip(other, (a, b) => a * b).Sum():F3}"));

// The embedding of a picture, of length 1, and how it was made.
async Task<(float[], string)> Embed(string path)
{
    for (var attempt = 0; ; attempt++)
    {
        using var form = new MultipartFormDataContent();
        form.Add(new ByteArrayContent(await File.ReadAllBytesAsync(path)), "file", Path.GetFileName(path));
        using var answer = await client.PostAsync("/embed?normalize=true", form);
        if (answer.IsSuccessStatusCode)
        {
            var body = await answer.Content.ReadFromJsonAsync<Answer>();
            return (body!.Embedding, answer.Headers.GetValues("X-Embedding-Recipe").Single());
        }
        var isPassing = answer.StatusCode is HttpStatusCode.TooManyRequests or HttpStatusCode.ServiceUnavailable;
        if (!isPassing || attempt == 9) throw new Exception($"{path}: {await answer.Content.ReadAsStringAsync()}");
        await Task.Delay(answer.Headers.RetryAfter?.Delta ?? TimeSpan.FromSeconds(1)); // full, or restarting
    }
}

record Answer(float[] Embedding);
