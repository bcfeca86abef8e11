<?php

declare(strict_types=1);

// Publishes to whoever is on the example site: user 1, everybody who watches the counter, and everybody.

require __DIR__ . '/../autoload.php';

$vestnik = new Vestnik\Client(getenv('VESTNIK_URL'), Vestnik\Credentials::bearer(getenv('VESTNIK_SECRET')));
$vestnik->publish(['users' => [1]], 'chat', 'whisper', ['from' => 'PHP', 'text' => 'written by a script']);
$vestnik->publish(['tags' => ['CHAT_COUNTER']], 'chat', 'counter', ['count' => 77]);
$vestnik->publish(['shared' => true], 'chat', 'message', ['from' => 'PHP', 'text' => 'to everybody']);
